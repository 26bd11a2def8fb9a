//! Certificates between the processes of a cluster and for its clients, and tokens.

use std::path::Path;
use std::time::Instant;

use super::member::{ACCOUNTS, Cluster, PATIENCE, Transfer};
use crate::support::certificates::{Authority, Certificate};
use crate::support::kafka::Broker;
use crate::support::thalweg::{command, succeeded};
use crate::support::{block_on, free_addresses};

fn words(certificate: &Certificate, ca: &Path) -> Vec<String> {
    let set = |name: &str, file: &Path| {
        let file = file.display();
        ["--set".to_owned(), format!("cluster.tls.{name}={file}")]
    };
    [
        set("certificate", &certificate.certificate),
        set("key", &certificate.key),
        set("ca", ca),
    ]
    .concat()
}

#[test]
fn a_cluster_with_certificates_serves_those_who_have_a_token() {
    let (broker, topic) = (Broker::shared(), "cluster-secure");
    broker.create_topic(topic, 1);
    let transfers: Vec<(&[u8], Vec<u8>, i64)> = (0..500)
        .map(|n| {
            let (payer, payee) = (n % ACCOUNTS, (n * 7 + 1) % ACCOUNTS);
            let transfer = Transfer {
                payer,
                payee,
                cents: n,
            };
            (
                &b""[..],
                serde_json::to_vec(&transfer).unwrap(),
                1_790_000_000_000,
            )
        })
        .collect();
    broker.produce(topic, 0, &transfers);
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path(), "authority");
    let certificates = ["first", "second"].map(|name| authority.sign(dir.path(), name));
    let tokens = dir.path().join("tokens");
    let token = succeeded(
        "token new",
        &command(&["token", "new", "test", "--file", tokens.to_str().unwrap()])
            .output()
            .unwrap(),
    );
    let token = token.trim();
    assert!(token.starts_with("tw_") && !std::fs::read_to_string(&tokens).unwrap().contains(token));

    let cluster = Cluster::new(broker, topic, dir.path(), 2).with(&["--set", "kafka.group=cluster-secure"]);
    let http = free_addresses(2);
    let members: Vec<_> = std::iter::zip(&certificates, &http)
        .enumerate()
        .map(|(process, (certificate, http))| {
            let mut more = words(certificate, &authority.file);
            more.extend(["--http".to_owned(), http.clone()]);
            for (name, file) in [
                ("http.tls.certificate", &certificate.certificate),
                ("http.tls.key", &certificate.key),
                ("http.tokens_file", &tokens),
            ] {
                more.extend(["--set".to_owned(), format!("{name}={}", file.display())]);
            }
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let mut member = cluster.spawn(process, &more);
            member.serves();
            member
        })
        .collect();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(&authority.file).unwrap()).unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .add_root_certificate(ca)
        .build()
        .unwrap();
    let ask = |http: &str, path: &str, token: Option<&str>| {
        let request = client.get(format!("https://{http}{path}")).timeout(PATIENCE);
        let request = token
            .iter()
            .fold(request, |request, token| request.bearer_auth(token));
        block_on(async {
            let answer = request.send().await.expect("it answers");
            (
                answer.status().as_u16(),
                answer.headers().clone(),
                answer.text().await.unwrap(),
            )
        })
    };
    for http in &http {
        let deadline = Instant::now() + PATIENCE;
        // Health needs no token.
        while ask(http, "/health/ready", None).0 != 200 {
            assert!(Instant::now() < deadline, "{}", members[0].log());
        }
        let rows = "/v1/views/balances/rows?limit=1000&after=transfers:0:499&wait=30s";
        let (status, _, body) = ask(http, rows, Some(token));
        assert_eq!(status, 200, "{body}");
        let sum: i64 = super::member::of_answer(&serde_json::from_str(&body).unwrap())
            .values()
            .map(|(_, cents)| cents)
            .sum();
        assert_eq!(sum, 0);
        for refused in [None, Some("tw_guessed")] {
            let (status, headers, body) = ask(http, rows, refused);
            assert_eq!(
                (status, headers["www-authenticate"].to_str().unwrap()),
                (401, "Bearer")
            );
            assert!(body.contains("/problems/unauthorized"), "{body}");
        }
        assert_eq!(ask(http, "/metrics", None).0, 401);
        assert_eq!(ask(http, "/metrics", Some(token)).0, 200);
    }
    // The command line presents both.
    let server = format!("https://{}", http[1]);
    let asked = ["query", "balances", "--server", &server, "--token", token, "--ca"];
    let mut query = command(&[&asked[..], &[authority.file.to_str().unwrap()]].concat());
    let printed = succeeded("query", &query.output().unwrap());
    assert!(printed.contains("account"), "{printed}");
    // A client that does not trust the certificate, and one that speaks no TLS.
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/health/live", http[0]);
        assert!(block_on(async { plain.get(url).timeout(PATIENCE).send().await }).is_err());
    }
    for member in members {
        let (status, log) = member.end(libc::SIGTERM);
        assert!(status.success(), "{log}");
        assert!(!log.contains(token));
    }
}

#[test]
fn a_process_without_the_right_certificate_is_not_let_in() {
    let (broker, topic) = (Broker::shared(), "cluster-impostor");
    broker.create_topic(topic, 1);
    let dir = tempfile::tempdir().expect("a directory");
    let (authority, other) = (
        Authority::new(dir.path(), "authority"),
        Authority::new(dir.path(), "other"),
    );
    let cluster = Cluster::new(broker, topic, dir.path(), 2).with(&[
        "--set",
        "kafka.group=cluster-impostor",
        "--set",
        "cluster.formation_timeout=5s",
        "--http",
        "127.0.0.1:0",
    ]);
    let own = words(&authority.sign(dir.path(), "own"), &authority.file);
    // It trusts the right authority, and has a certificate of another one; or none at all.
    let theirs = words(&other.sign(dir.path(), "theirs"), &authority.file);
    for impostor in [theirs, Vec::new()] {
        let spawn = |process, more: &[String]| {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            cluster.spawn(process, &more)
        };
        let (first, second) = (spawn(0, &own), spawn(1, &impostor));
        let (status, log) = second.ended();
        assert_eq!(status.code(), Some(1), "{log}");
        let (status, log) = first.ended();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("refused a connection to the cluster"), "{log}");
        assert!(log.contains("missing after 5s: process 1"), "{log}");
    }
}
