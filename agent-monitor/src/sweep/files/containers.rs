//! Containers that are configured: those that Docker and Podman keep, those of containerd that were made and not removed,
//! and compose files. What runs is seen as processes. Nobody is asked: their state lies in files.

use serde_json::Value;

use super::{FILE_MAX, Job};
use crate::sweep::homes::Home;
use crate::sweep::identify::{self, Hit, untagged};
use crate::sweep::mcp::yaml;
use crate::sweep::observe::{About, Harvest, Observation, Place, Source};
use crate::sweep::pack::Pack;

/// Where Docker keeps containers.
const DOCKER: &str = "/var/lib/docker/containers";

/// Where Podman keeps the containers of root, and below a home those of a user.
const PODMAN: &str = "/var/lib/containers/storage/overlay-containers";
const PODMAN_OWN: &str = ".local/share/containers/storage/overlay-containers";
/// Where containerd has the bundles of its containers, by namespace.
const CONTAINERD: &str = "/run/containerd/io.containerd.runtime.v2.task";
/// Most containers of one keeper.
const CONTAINERS_MAX: usize = 10_000;

/// The system's containers, whether they run or not.
pub(super) fn of_system(job: Job<'_>, place: &Place, out: &mut Harvest) {
    of_docker(job, place, out);
    of_podman(job, place, PODMAN, out);
    of_containerd(job, place, out);
}

/// Containers that a user runs without root.
pub(super) fn of_home(job: Job<'_>, home: &Home, place: &Place, out: &mut Harvest) {
    of_podman(job, place, &format!("{}/{PODMAN_OWN}", home.path), out);
}

fn of_podman(job: Job<'_>, place: &Place, directory: &str, out: &mut Harvest) {
    let path = format!("{directory}/containers.json");
    let bytes = match job.root.read(&path, FILE_MAX) {
        Ok(bytes) => bytes,
        Err(trouble) => return out.trouble(trouble, job.root.shown(&path)),
    };
    for (id, found) in podman(job.pack, &bytes) {
        out.count += 1;
        let place = Place { container: Some(id), ..place.clone() };
        add(job, &place, &path, found.hit, &format!("container {}", found.name), out);
    }
}

fn of_containerd(job: Job<'_>, place: &Place, out: &mut Harvest) {
    let names = |directory: &str| {
        let entries =
            job.root.list(directory, CONTAINERS_MAX).map(|(entries, _)| entries).unwrap_or_default();
        entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect::<Vec<_>>()
    };
    for namespace in names(CONTAINERD) {
        for id in names(&format!("{CONTAINERD}/{namespace}")) {
            let path = format!("{CONTAINERD}/{namespace}/{id}/config.json");
            if job.late(out, &path) {
                return;
            }
            let Ok(bytes) = job.root.read(&path, FILE_MAX) else { continue };
            out.count += 1;
            let Some(found) = bundle(job.pack, &id, &bytes) else { continue };
            let place = Place { container: Some(id), ..place.clone() };
            add(job, &place, &path, found.hit, &format!("container {}", found.name), out);
        }
    }
}

/// Docker's containers, whether they run or not.
fn of_docker(job: Job<'_>, place: &Place, out: &mut Harvest) {
    let entries = match job.root.list(DOCKER, CONTAINERS_MAX) {
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
    let image = value.get("Config").and_then(|config| text(config.get("Image")?)).unwrap_or_default();
    let name = value.get("Name").and_then(text).unwrap_or_default();
    let mut args: Vec<String> = value.get("Path").and_then(text).into_iter().collect();
    args.extend(texts(value.get("Args")));
    told(pack, name.trim_start_matches('/'), &image, &args)
}

/// Podman's containers: `containers.json` of its storage, whose `metadata` is JSON once more. Pure.
fn podman(pack: &Pack, bytes: &[u8]) -> Vec<(String, Found)> {
    let Ok(Value::Array(list)) = serde_json::from_slice(bytes) else { return Vec::new() };
    let one = |value: &Value| {
        let id = value.get("id").and_then(text)?;
        let metadata: Value = serde_json::from_str(value.get("metadata")?.as_str()?).ok()?;
        let image = metadata.get("image-name").and_then(text)?;
        let name = metadata.get("name").and_then(text).unwrap_or_else(|| id.chars().take(12).collect());
        Some((id, told(pack, &name, &image, &[])?))
    };
    list.iter().take(CONTAINERS_MAX).filter_map(one).collect()
}

/// What the bundle of a container says, as the OCI runtime specification has it: the annotations of who made it, else its
/// command. Pure.
fn bundle(pack: &Pack, id: &str, bytes: &[u8]) -> Option<Found> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let note = |key: &str| value.get("annotations").and_then(|notes| text(notes.get(key)?));
    let image = note("io.kubernetes.cri.image-name")
        .or_else(|| note("io.podman.annotations.image"))
        .unwrap_or_default();
    let name = note("io.kubernetes.cri.container-name").or_else(|| note("nerdctl/name"));
    let args = texts(value.get("process").and_then(|process| process.get("args")));
    told(pack, &name.unwrap_or_else(|| id.chars().take(12).collect()), &image, &args)
}

/// By the image, else by the command. Pure.
fn told(pack: &Pack, name: &str, image: &str, args: &[String]) -> Option<Found> {
    let image = untagged(image);
    let by_image = pack.image(&image).map(|product| identify::of_image(product, &image));
    let hit =
        by_image.or_else(|| identify::best(pack, args).filter(|hit| hit.weight >= 50 && !hit.ambiguous))?;
    Some(Found { name: name.to_owned(), hit })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(|text| text.chars().take(300).collect())
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().take(200).filter_map(text).collect()
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
        let stored = r#"[{"id":"0123456789abcdef","metadata":"{\"image-name\":\"docker.io/ollama/ollama:latest\",\"name\":\"llm\"}"},
            {"id":"5","metadata":"{\"image-name\":\"postgres\"}"},{"id":"6","metadata":"no"},7]"#;
        let stored = podman(embedded(), stored.as_bytes());
        let names: Vec<(&str, &str)> =
            stored.iter().map(|(id, found)| (id.as_str(), found.name.as_str())).collect();
        assert_eq!(names, [("0123456789abcdef", "llm")]);
        let of_bundle = |text: &str| {
            let found = bundle(embedded(), "0123456789abcdef", text.as_bytes())?;
            Some((found.name, embedded().product(found.hit.product)?.id.clone()))
        };
        let by_command =
            r#"{"process":{"args":["node","/usr/lib/node_modules/@openai/codex/bin/codex.js"]}}"#;
        assert_eq!(of_bundle(by_command), some("0123456789ab", "codex-cli"));
        let by_image = r#"{"annotations":{"io.kubernetes.cri.image-name":"ollama/ollama:1","io.kubernetes.cri.container-name":"m"},"process":{"args":["x"]}}"#;
        assert_eq!(of_bundle(by_image), some("m", "ollama"));
        let compose = "services:\n  llm:\n    image: ollama/ollama:latest\n    ports:\n      - 11434:11434\n  db:\n    image: postgres\n";
        assert_eq!(services(compose).len(), 2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(?s).{0,200}") {
            let _container = docker(&Pack::default(), &bytes);
            let _containers = podman(&Pack::default(), &bytes);
            let _bundle = bundle(&Pack::default(), "x", &bytes);
            let _services = services(&text);
        }
    }
}
