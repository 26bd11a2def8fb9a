//! What runs beside the service is right as far as it can be seen without running it: docker-compose.yml and
//! ops/ parse, name metrics and labels that there are, and files that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use thalweg::http::HttpSettings;
use thalweg::metrics::Metrics;
use yaml_rust2::{Yaml, YamlLoader};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DASHBOARD: &str = "ops/grafana/dashboards/thalweg.json";

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A YAML file of one document, as JSON has it.
fn yaml(path: &str) -> Value {
    let documents = documents(path);
    assert_eq!(documents.len(), 1, "{path}");
    documents.into_iter().next().expect("there is one")
}

/// The documents of a YAML file.
fn documents(path: &str) -> Vec<Value> {
    let documents = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    documents.iter().map(plain).collect()
}

fn plain(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Hash(hash) => {
            let members = hash.iter().map(|(name, value)| {
                let name = name
                    .as_str()
                    .unwrap_or_else(|| panic!("a name that is no text: {name:?}"));
                (name.to_owned(), plain(value))
            });
            Value::Object(members.collect::<Map<_, _>>())
        }
        Yaml::Array(items) => items.iter().map(plain).collect(),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::Boolean(is) => Value::from(*is),
        Yaml::Real(number) => serde_json::from_str(number).expect("a number"),
        Yaml::Null => Value::Null,
        other => panic!("no plain YAML: {other:?}"),
    }
}

fn json(path: &str) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> Vec<&str> {
    list(value)
        .iter()
        .map(|item| item.as_str().expect("text"))
        .collect()
}

/// Every file below a folder of the repository.
fn files(folder: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![Path::new(ROOT).join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files
}

#[test]
fn all_files_parse() {
    let files = files("ops");
    for path in &files {
        let path = path.strip_prefix(ROOT).unwrap().to_str().unwrap();
        match path.rsplit('.').next() {
            Some("yml") => assert!(!documents(path).is_empty(), "{path}"),
            Some("service") => {
                let text = text(path);
                let lines = text
                    .lines()
                    .filter(|line| !line.is_empty() && !line.starts_with('#'));
                for line in lines {
                    let is_section = line.starts_with('[') && line.ends_with(']');
                    assert!(is_section || line.split_once('=').is_some(), "{path}: {line}");
                }
                // It starts a command that there is, with flags that there are.
                let starts = text
                    .lines()
                    .find_map(|line| line.strip_prefix("ExecStart="))
                    .expect("it starts something");
                let words = starts
                    .split(' ')
                    .skip(1)
                    .filter(|word| word.starts_with("--") || *word == "run");
                let words: Vec<&str> = words.collect();
                let command = [&words[..1], &["--help"]].concat();
                let help = crate::support::thalweg::command(&command)
                    .output()
                    .expect("it runs");
                let help = String::from_utf8_lossy(&help.stdout).into_owned();
                assert!(
                    words[1..].iter().all(|flag| help.contains(flag)),
                    "{words:?}\n{help}"
                );
            }
            Some("json") => drop(json(path)),
            _ => panic!("{path}: a file that nothing checks"),
        }
    }
    assert!(files.len() >= 4, "where are they?");
}

#[test]
fn the_composition_holds_together() {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_object().unwrap();
    let named: BTreeSet<&str> = compose["volumes"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut used = BTreeSet::new();
    for (name, service) in services {
        match service["image"].as_str() {
            Some(image) => {
                let (_, tag) = image
                    .rsplit_once(':')
                    .unwrap_or_else(|| panic!("{image}: no version"));
                assert!(
                    tag.starts_with(|c: char| c == 'v' || c.is_ascii_digit()),
                    "{image}: which version?"
                );
            }
            None => assert!(
                Path::new(ROOT)
                    .join(service["build"].as_str().unwrap())
                    .join("Dockerfile")
                    .exists()
            ),
        }
        for port in texts(&service["ports"]) {
            assert!(
                port.starts_with("127.0.0.1:"),
                "{name}: {port} is open to the network"
            );
        }
        for volume in texts(&service["volumes"]) {
            let from = volume.split(':').next().unwrap();
            match from.strip_prefix("./") {
                Some(path) => assert!(Path::new(ROOT).join(path).exists(), "{name}: there is no {path}"),
                None => {
                    assert!(named.contains(from), "{name}: volume {from} is not declared");
                    used.insert(from);
                }
            }
        }
        for (other, condition) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services.contains_key(other), "{name}: there is no {other}");
            let healthy = condition["condition"] == "service_healthy";
            assert!(
                healthy && services[other]["healthcheck"].is_object(),
                "{name}: how is {other} healthy?"
            );
        }
    }
    assert_eq!(used, named, "a volume that nobody has");
    for (service, image) in [
        ("kafka", "apache/kafka"),
        ("registry", "apicurio/apicurio-registry"),
    ] {
        let pom = text(&format!("scripts/jars/{service}/pom.xml"));
        let version = pom
            .split("  <version>")
            .nth(1)
            .and_then(|rest| rest.split('<').next())
            .unwrap();
        assert_eq!(
            services[service]["image"],
            format!("{image}:{version}"),
            "not what the tests use"
        );
    }
}

#[test]
fn prometheus_asks_where_thalweg_answers() {
    let compose = yaml("docker-compose.yml");
    let service = &compose["services"]["thalweg"];
    assert!(
        !texts(&service["command"])
            .iter()
            .any(|arg| arg.starts_with("--http"))
    );
    let config = yaml("ops/prometheus.yml");
    let jobs = list(&config["scrape_configs"]);
    let job = jobs
        .iter()
        .find(|job| job["job_name"] == "thalweg")
        .expect("it is asked");
    let address = HttpSettings::default().address.to_string();
    assert_eq!(texts(&job["static_configs"][0]["targets"]), [address]);
    assert_eq!(job["metrics_path"], "/metrics");
    let web = texts(&compose["services"]["prometheus"]["command"]);
    let listens = web
        .iter()
        .find_map(|arg| arg.strip_prefix("--web.listen-address="))
        .unwrap();
    let source = &yaml("ops/grafana/provisioning/datasources/prometheus.yml")["datasources"][0];
    assert_eq!(source["url"], format!("http://{listens}"));
    assert_eq!(
        source["jsonData"]["timeInterval"],
        config["global"]["scrape_interval"]
    );
}

#[test]
fn the_dashboard_is_found_and_finds_its_data() {
    let compose = yaml("docker-compose.yml");
    let provider = &yaml("ops/grafana/provisioning/dashboards/thalweg.yml")["providers"][0];
    let path = provider["options"]["path"].as_str().unwrap();
    let grafana = &compose["services"]["grafana"];
    let mounted = format!("./ops/grafana/dashboards:{path}:ro");
    assert!(
        texts(&grafana["volumes"]).contains(&mounted.as_str()),
        "{mounted}"
    );
    let home = format!("{path}/thalweg.json");
    assert_eq!(
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"],
        home
    );

    let source = &yaml("ops/grafana/provisioning/datasources/prometheus.yml")["datasources"][0]["uid"];
    let dashboard = json(DASHBOARD);
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        let title = &panel["title"];
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{title}: its id is taken"
        );
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title}: too wide");
        for (x, y) in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(places.insert((x, y)), "{title}: its place is taken");
        }
        if panel["type"] != "row" {
            assert_eq!(&panel["datasource"]["uid"], source, "{title}");
            assert!(!list(&panel["targets"]).is_empty(), "{title}: it shows nothing");
        }
    }
}

/// Every sample that the process may give, with the names of its labels.
fn samples() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = Metrics::new();
    let source = metrics.source("s");
    source.trouble("away").set(0);
    source.partition(0).watermark(thalweg::EventTime(1));
    let _taken = (source.late("step"), source.dead_letters("json_type"));
    let _taken = (metrics.worker(0), metrics.view("v"));
    metrics.route("/").answered(200, Duration::from_millis(1));
    let mut samples: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).expect("a name and a value");
        let labels = line
            .contains('{')
            .then(|| rest.split('}').next())
            .flatten()
            .unwrap_or_default();
        let labels = labels
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name.to_owned());
        samples.entry(name.to_owned()).or_default().extend(labels);
    }
    samples
}

/// The metrics that are named in some text.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("thalweg_") && !word.ends_with('_'))
        .collect()
}

/// The labels that a query groups by or selects, and those of its legend.
fn labels(query: &str, legend: &str) -> Vec<String> {
    let between = |text: &str, open: &str, close: char| {
        let parts = text.split(open).skip(1);
        parts
            .map(|part| part.split(close).next().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let grouped = between(query, "by (", ')').into_iter();
    let grouped = grouped.flat_map(|names| {
        names
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect::<Vec<_>>()
    });
    grouped.chain(between(legend, "{{", '}')).collect()
}

#[test]
fn every_metric_that_is_shown_is_there() {
    let samples = samples();
    assert!(
        samples["thalweg_http_requests_total"].contains("status"),
        "{samples:?}"
    );
    let mut shown = BTreeSet::new();
    let dashboard = json(DASHBOARD);
    for panel in list(&dashboard["panels"]) {
        for target in list(&panel["targets"]) {
            let (query, legend) = (
                target["expr"].as_str().unwrap(),
                target["legendFormat"].as_str().unwrap(),
            );
            let names = named(query);
            assert!(!names.is_empty(), "{query}: it names no metric of ours");
            for name in &names {
                assert!(samples.contains_key(*name), "{query}: there is no metric {name}");
            }
            let has: BTreeSet<&str> = names
                .iter()
                .flat_map(|name| &samples[*name])
                .map(String::as_str)
                .collect();
            for label in labels(query, legend) {
                let given = ["instance", "job"].contains(&label.as_str()) || has.contains(label.as_str());
                assert!(given, "{query} as {legend}: there is no label {label}");
            }
            shown.extend(names.into_iter().map(str::to_owned));
        }
    }
    assert!(shown.len() > 20, "{shown:?}");
    for page in ["docs/operations.md", "ops/prometheus.yml"] {
        for name in named(&text(page)) {
            let there = samples
                .keys()
                .any(|sample| sample == name || sample.strip_suffix("_count") == Some(name));
            assert!(there, "{page}: there is no metric {name}");
        }
    }
}

/// The settings in the manifests are such, and everything that is mounted or named is there.
#[test]
fn manifests_name_what_there_is() {
    let documents = documents("ops/kubernetes/thalweg.yml");
    let of = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == *kind);
    let set = of("StatefulSet").next().expect("a StatefulSet");
    let (spec, pod) = (&set["spec"], &set["spec"]["template"]["spec"]);
    let replicas = spec["replicas"].as_u64().expect("a number");
    let services: BTreeSet<&str> = of("Service")
        .filter_map(|service| service["metadata"]["name"].as_str())
        .collect();
    assert!(services.contains(spec["serviceName"].as_str().expect("a name")));
    for service in of("Service") {
        assert_eq!(
            service["spec"]["selector"],
            set["spec"]["template"]["metadata"]["labels"]
        );
    }
    let volumes = list(&pod["volumes"])
        .iter()
        .chain(list(&spec["volumeClaimTemplates"]));
    let volumes: BTreeSet<&str> = volumes
        .filter_map(|volume| volume["name"].as_str().or(volume["metadata"]["name"].as_str()))
        .collect();
    let container = &pod["containers"][0];
    let mounts = list(&container["volumeMounts"]);
    assert!(
        mounts
            .iter()
            .all(|mount| volumes.contains(mount["name"].as_str().expect("a name")))
    );
    let budget = of("PodDisruptionBudget").next().expect("a budget");
    assert_eq!(budget["spec"]["minAvailable"].as_u64(), Some(replicas));

    let settings = of("ConfigMap").next().expect("settings")["data"]["thalweg.toml"].clone();
    let settings = settings.as_str().expect("text");
    let port = format!(":{}", container["ports"][0]["containerPort"]);
    assert_eq!(
        settings.matches(&port).count() as u64,
        replicas,
        "one host per pod"
    );
    // With files in place of secrets, the command line finds no mistake in them.
    let dir = tempfile::tempdir().expect("a directory");
    for file in [
        "cluster/secret",
        "tls/tls.crt",
        "tls/tls.key",
        "tls/ca.crt",
        "tokens/tokens",
    ] {
        let file = dir.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("it can be made");
        std::fs::write(file, "secret").expect("it can be written");
    }
    let there = settings.replace("/run/secrets", dir.path().to_str().expect("a plain path"));
    assert_ne!(there, settings);
    let file = dir.path().join("thalweg.toml");
    std::fs::write(
        &file,
        there
            .replace("\"hostname\"", "\"1\"")
            .replace("kafka:9092", "127.0.0.1:9"),
    )
    .expect("it can be written");
    let checked =
        crate::support::thalweg::command(&["check", "--config", file.to_str().expect("a plain path")])
            .output()
            .expect("it runs");
    let said = [checked.stdout, checked.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(!said.contains("mistake"), "{said}");
    assert!(
        said.contains("cluster.tls.certificate") && said.contains("thalweg-2.thalweg-peers"),
        "{said}"
    );
}
