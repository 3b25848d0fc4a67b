-- One row per shadow agent and owner, over the lines of `agent-monitor sweep -o jsonl` of many hosts.
-- Traces alone, and what is of low confidence, are no agents that are there.
WITH finds AS (
    SELECT *
    FROM read_json(
        $1,
        format = 'newline_delimited',
        columns = {
            host: 'STRUCT(name VARCHAR, id VARCHAR)',
            id: 'VARCHAR',
            product: 'STRUCT(id VARCHAR, name VARCHAR, variant VARCHAR, version VARCHAR)',
            identity: 'STRUCT(level VARCHAR)',
            presence: 'STRUCT(level VARCHAR)',
            state: 'VARCHAR',
            registry: 'STRUCT(state VARCHAR)',
            owner: 'STRUCT("user" VARCHAR, uid BIGINT, container VARCHAR)',
            risks: 'STRUCT(mark VARCHAR)[]'
        }
    )
    WHERE registry.state IN ('shadow', 'expired', 'retired') AND identity.level <> 'low' AND presence.level <> 'low'
)
SELECT
    product.id AS product,
    any_value(product.name) AS name,
    coalesce(owner."user", CAST(owner.uid AS VARCHAR), 'system') AS owner,
    count(DISTINCT coalesce(host.id, host.name)) AS hosts,
    CASE WHEN bool_or(state = 'running') THEN 'running' ELSE any_value(state) END AS state,
    coalesce(list_sort(list_distinct(list(product.version) FILTER (product.version IS NOT NULL))), []) AS versions,
    coalesce(list_sort(list_distinct(flatten(list([risk.mark FOR risk IN risks])))), []) AS risks
FROM finds
GROUP BY ALL
ORDER BY hosts DESC, product, owner;
