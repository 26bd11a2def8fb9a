//! A real schema registry that speaks Confluent's API.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::block_on;
use super::server::Server;

const SCRIPT: &str = "registry.sh";

/// A registry on 127.0.0.1. It ends when it is dropped, and with the test process at the latest.
pub struct Registry {
    server: Server,
    http: reqwest::Client,
}

impl Registry {
    /// Starts a registry of this test's own: one that it may kill, or sees alone. It takes 7 s and more.
    pub fn start() -> Self {
        let http = client();
        let server = Server::start(SCRIPT, &[], |port| answers(&http, port));
        let registry = Self { server, http };
        registry.set_compatibility("BACKWARD"); // as Confluent's own has it; this one starts with NONE
        registry
    }

    /// The registry that all tests of this process share: for those that use subjects with names of their
    /// own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Registry> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The base of Confluent's API, the same after a restart.
    pub fn url(&self) -> String {
        url(self.server.port())
    }

    /// Kills the process.
    pub fn kill9(&self) {
        self.server.end(libc::SIGKILL);
    }

    /// Starts it again on the same port, with the schemas it had; kills it before if it runs.
    pub fn restart(&self) {
        self.kill9();
        self.server.start_again(|port| answers(&self.http, port));
    }

    /// Registers an Avro schema under a subject (`<topic>-value`), and returns its id. The same text gives
    /// the same id.
    pub fn register(&self, subject: &str, schema_json: &str) -> i32 {
        self.register_as(subject, "AVRO", schema_json)
    }

    /// The same for a schema of type `AVRO`, `PROTOBUF` or `JSON`.
    pub fn register_as(&self, subject: &str, kind: &str, schema: &str) -> i32 {
        let answer = self.try_register(subject, kind, schema);
        answer.unwrap_or_else(|(status, body)| panic!("subject {subject} was refused with {status}: {body}"))
    }

    /// The same for a schema that refers to others, by name, subject and version.
    #[cfg(feature = "protobuf")]
    pub fn register_with(&self, subject: &str, kind: &str, schema: &str, references: Value) -> i32 {
        let body = json!({ "schema": schema, "schemaType": kind, "references": references });
        self.send_schema(subject, &body)
            .unwrap_or_else(|(status, body)| panic!("subject {subject} was refused with {status}: {body}"))
    }

    /// The same where a refusal is expected: its status (409: incompatible) and body.
    pub fn try_register(&self, subject: &str, kind: &str, schema: &str) -> Result<i32, (u16, String)> {
        self.send_schema(subject, &json!({ "schema": schema, "schemaType": kind }))
    }

    fn send_schema(&self, subject: &str, body: &Value) -> Result<i32, (u16, String)> {
        let request = self
            .http
            .post(format!("{}/subjects/{subject}/versions", self.url()))
            .json(body);
        let body = send(request)?;
        let id = body["id"].as_i64().and_then(|id| i32::try_from(id).ok());
        id.ok_or_else(|| (200, format!("no id in {body}")))
    }

    /// Sets what the next version of every subject must be compatible with: `NONE`, `BACKWARD` (at first),
    /// `FULL`…
    ///
    /// For all subjects only: unlike Confluent's, this registry goes on to refuse by the global level what a
    /// subject's own level of `NONE` would let pass.
    pub fn set_compatibility(&self, level: &str) {
        let request = self
            .http
            .put(format!("{}/config", self.url()))
            .json(&json!({ "compatibility": level }));
        send(request)
            .unwrap_or_else(|(status, body)| panic!("compatibility was refused with {status}: {body}"));
    }
}

fn send(request: reqwest::RequestBuilder) -> Result<Value, (u16, String)> {
    block_on(async {
        let response = request.send().await.expect("the registry answers");
        let status = response.status();
        let text = response.text().await.expect("the registry's answer is text");
        if !status.is_success() {
            return Err((status.as_u16(), text));
        }
        Ok(serde_json::from_str(&text).expect("the registry's answer is JSON"))
    })
}

/// Whether the list of subjects is answered: the storage behind the API is open.
fn answers(http: &reqwest::Client, port: u16) -> bool {
    let request = http.get(format!("{}/subjects", url(port)));
    block_on(async {
        request
            .send()
            .await
            .is_ok_and(|response| response.status().is_success())
    })
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/apis/ccompat/v7")
}

fn client() -> reqwest::Client {
    // Each call has a runtime of its own, which ends with it: no connection may outlive the call.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(30));
    builder.build().expect("an HTTP client can be built")
}
