//! Containers that are configured: those that Docker keeps, and compose files. What runs is seen as processes.

use serde_json::Value;

use super::{FILE_MAX, Job};
use crate::sweep::identify::{self, Hit, untagged};
use crate::sweep::mcp::yaml;
use crate::sweep::observe::{About, Harvest, Observation, Place, Source};
use crate::sweep::pack::Pack;

/// Where Docker keeps containers.
const DOCKER: &str = "/var/lib/docker/containers";

/// Docker's containers, whether they run or not.
pub(super) fn of_system(job: Job<'_>, place: &Place, out: &mut Harvest) {
    let entries = match job.root.list(DOCKER, 10_000) {
        Ok((entries, _)) => entries,
        Err(trouble) => return out.trouble(trouble, job.root.shown(DOCKER)),
    };
    for entry in entries.iter().filter(|entry| entry.is_dir) {
        let path = format!("{DOCKER}/{}/config.v2.json", entry.name);
        if job.late(out, &path) {
            return;
        }
        let bytes = match job.root.read(&path, FILE_MAX) {
            Ok(bytes) => bytes,
            Err(trouble) => {
                out.trouble(trouble, job.root.shown(&path));
                continue;
            }
        };
        out.count += 1;
        let Some(found) = docker(job.pack, &bytes) else { continue };
        let place = Place { container: Some(entry.name.clone()), ..place.clone() };
        add(job, &place, &path, found.hit, &format!("container {}", found.name), out);
    }
}

/// The services of a compose file.
pub(super) fn compose(job: Job<'_>, place: &Place, path: &str, out: &mut Harvest) {
    let Ok(text) = job.root.text(path, 1 << 20) else { return };
    for (name, image) in services(&text) {
        let image = untagged(&image);
        if let Some(product) = job.pack.image(&image) {
            add(job, place, path, identify::of_image(product, &image), &format!("service {name}"), out);
        }
    }
}

fn add(job: Job<'_>, place: &Place, path: &str, hit: Hit, who: &str, out: &mut Harvest) {
    let at = job.root.shown(path);
    let what = format!("{who} {}", hit.what);
    let seen =
        Observation::new(About::Product(hit.product), place.clone(), Source::Container, hit.weight, what, at);
    let when = job.root.meta(path).ok().map(|meta| meta.modified);
    out.seen.push(Observation { when, variant: hit.variant, ..seen });
}

struct Found {
    name: String,
    hit: Hit,
}

/// What a container of Docker is: by its image, else by its command. Pure.
fn docker(pack: &Pack, bytes: &[u8]) -> Option<Found> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let text = |value: &Value| value.as_str().map(|text| text.chars().take(300).collect::<String>());
    let image = value.get("Config").and_then(|config| text(config.get("Image")?)).unwrap_or_default();
    let name = value.get("Name").and_then(text).unwrap_or_default();
    let image = untagged(&image);
    let by_image = pack.image(&image).map(|product| identify::of_image(product, &image));
    let mut args: Vec<String> = value.get("Path").and_then(text).into_iter().collect();
    let more = value.get("Args").and_then(Value::as_array);
    args.extend(more.into_iter().flatten().take(200).filter_map(text));
    let hit =
        by_image.or_else(|| identify::best(pack, &args).filter(|hit| hit.weight >= 50 && !hit.ambiguous))?;
    Some(Found { name: name.trim_start_matches('/').to_owned(), hit })
}

/// Names and images of a compose file's services. Pure.
fn services(text: &str) -> Vec<(String, String)> {
    let value = yaml::parse(text);
    let Some(services) = value.get("services").and_then(Value::as_object) else { return Vec::new() };
    let image = |value: &Value| value.get("image")?.as_str().map(str::to_owned);
    services.iter().take(500).filter_map(|(name, value)| Some((name.clone(), image(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sweep::pack::embedded;

    #[test]
    fn containers_are_told_by_image_and_by_command() {
        let id = |text: &str| {
            let found = docker(embedded(), text.as_bytes())?;
            Some((found.name, embedded().product(found.hit.product)?.id.clone()))
        };
        let some = |name: &str, id: &str| Some((name.to_owned(), id.to_owned()));
        let by_image = r#"{"Name":"/chat","Config":{"Image":"ghcr.io/open-webui/open-webui:main"},"Path":"bash","Args":["start.sh"]}"#;
        assert_eq!(id(by_image), some("chat", "open-webui"));
        let by_command =
            r#"{"Name":"/x","Config":{"Image":"our/base:1"},"Path":"npx","Args":["-y","@openai/codex"]}"#;
        assert_eq!(id(by_command), some("x", "codex-cli"));
        assert_eq!(id(r#"{"Name":"/db","Config":{"Image":"postgres:17"},"Path":"postgres"}"#), None);
        let compose = "services:\n  llm:\n    image: ollama/ollama:latest\n    ports:\n      - 11434:11434\n  db:\n    image: postgres\n";
        assert_eq!(services(compose).len(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(?s).{0,200}") {
            let _container = docker(&Pack::default(), &bytes);
            let _services = services(&text);
        }
    }
}
