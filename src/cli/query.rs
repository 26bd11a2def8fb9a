//! `query`: rows of a running service, as a table or as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::{QueryArguments, ServerArguments, serve};
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct ViewList {
    views: Vec<ViewSummary>,
}

#[derive(Deserialize)]
struct ViewSummary {
    name: String,
    rows: u64,
    key: Vec<Field>,
    value: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Rows {
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    next: Option<String>,
    rows: Vec<Box<RawValue>>,
}

pub(super) fn run(arguments: &QueryArguments) -> Result<()> {
    let base = base_url(&arguments.at)?;
    if let Some(view) = arguments.view.as_ref().filter(|view| view.contains('=')) {
        return Err(Error::request(format!("`{view}` is not a view"))
            .hint("the view's name comes first, conditions follow"));
    }
    let url = match &arguments.view {
        None => format!("{base}/v1/views"),
        Some(view) => format!(
            "{base}/v1/views/{}/rows?{}",
            encode(view),
            conditions(&arguments.conditions)?
        ),
    };
    let body = fetch(&url, base, &arguments.at)?;
    if arguments.json {
        println!("{body}");
    } else if arguments.view.is_none() {
        print!("{}", views(&body)?);
    } else {
        print!("{}", rows(&body)?);
    }
    Ok(())
}

/// The address of the service.
pub(super) fn base_url(at: &ServerArguments) -> Result<&str> {
    let base = at.server.trim_end_matches('/');
    match base.starts_with("http://") || base.starts_with("https://") {
        true => Ok(base),
        false => Err(
            Error::request(format!("`{base}` is not the address of a service"))
                .hint("write it as http://HOST:PORT or https://HOST:PORT"),
        ),
    }
}

/// Reads from the service.
pub(super) fn fetch(url: &str, base: &str, arguments: &ServerArguments) -> Result<String> {
    let client = client(arguments.ca.as_deref())?;
    serve::tokio()?.block_on(async {
        let away = |error: reqwest::Error| {
            Error::external(format!("no answer from {base}"))
                .detail(error)
                .hint("is the service running there? Use --server URL for another address")
        };
        let request = client.get(url);
        let request = match &arguments.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        let body = answer.text().await.map_err(away)?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(problem(status.as_u16(), &body))
        }
    })
}

/// A client that trusts these certificates too.
fn client(ca: Option<&Path>) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder();
    let built = match ca {
        Some(ca) => trusting(builder, ca)?,
        None => builder,
    };
    let built = built.build();
    built.map_err(|error| Error::internal("cannot make an HTTP client").detail(error))
}

#[cfg(feature = "tls")]
fn trusting(builder: reqwest::ClientBuilder, ca: &Path) -> Result<reqwest::ClientBuilder> {
    let unusable = |error: &dyn std::fmt::Display| {
        Error::definition(format!("cannot use the certificates in {}", ca.display())).detail(error)
    };
    let pem = std::fs::read(ca).map_err(|error| unusable(&error))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(&error))?;
    Ok(certificates
        .into_iter()
        .fold(builder, reqwest::ClientBuilder::add_root_certificate))
}

#[cfg(not(feature = "tls"))]
fn trusting(_builder: reqwest::ClientBuilder, ca: &Path) -> Result<reqwest::ClientBuilder> {
    Err(
        Error::definition(format!("cannot use the certificates in {}", ca.display()))
            .detail("this build has no TLS"),
    )
}

/// Converts the service's problem details into an error.
fn problem(status: u16, body: &str) -> Error {
    #[derive(Deserialize)]
    struct ProblemBody {
        title: String,
        detail: Option<String>,
        hint: Option<String>,
    }
    match serde_json::from_str::<ProblemBody>(body) {
        Err(_) => Error::request(format!("the service answered {status}")).detail(body),
        Ok(problem) => {
            let error = Error::request(problem.title);
            let error = problem.detail.into_iter().fold(error, Error::detail);
            problem.hint.into_iter().fold(error, Error::hint)
        }
    }
}

fn conditions(given: &[String]) -> Result<String> {
    let pair = |condition: &String| match condition.split_once('=') {
        Some((field, value)) => Ok(format!("{}={}", encode(field), encode(value))),
        None => Err(Error::request(format!("`{condition}` is not a condition"))
            .hint("write FIELD=VALUE, as in merchant=42")),
    };
    Ok(given.iter().map(pair).collect::<Result<Vec<_>>>()?.join("&"))
}

/// Percent-encodes all but unreserved characters.
pub(super) fn encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|b| {
            if keep(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn views(body: &str) -> Result<String> {
    // The names that an enum lists would make the table wider than any terminal; `--json` has them.
    let kind = |kind: &str| {
        if kind.starts_with("enum<") {
            "enum".to_owned()
        } else {
            kind.to_owned()
        }
    };
    let fields = |fields: &[Field]| {
        fields
            .iter()
            .map(|field| format!("{} {}", field.name, kind(&field.kind)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let listed: ViewList = serde_json::from_str(body)?;
    let lines = listed.views.iter().map(|view| {
        vec![
            view.name.clone(),
            view.rows.to_string(),
            fields(&view.key),
            fields(&view.value),
        ]
    });
    Ok(table(
        &["view".into(), "rows".into(), "key".into(), "value".into()],
        lines.collect(),
    ))
}

fn rows(body: &str) -> Result<String> {
    let answer: Rows = serde_json::from_str(body)?;
    let mut columns: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for row in &answer.rows {
        // Values stay as the service wrote them: no number is rounded on its way to the terminal.
        let row = ordered(row.get())?;
        for (name, _) in &row {
            if !columns.contains(name) {
                columns.push(name.clone());
            }
        }
        lines.push(row.into_iter().collect::<BTreeMap<_, _>>());
    }
    let cells = |row: &BTreeMap<String, String>| {
        columns
            .iter()
            .map(|c| row.get(c).cloned().unwrap_or_default())
            .collect()
    };
    let mut out = table(&columns, lines.iter().map(cells).collect());
    let rows = if lines.len() == 1 { "row" } else { "rows" };
    let more = if answer.next.is_some() {
        ", and more exist (limit=… sets how many are shown)"
    } else {
        ""
    };
    let time = answer.time.unwrap_or_default();
    out.push_str(&format!("{} {rows}{more}, as of {time}\n", lines.len()));
    Ok(out)
}

/// The members of a JSON object in order, with values as written and strings without quotes.
fn ordered(object: &str) -> Result<Vec<(String, String)>> {
    struct Members(Vec<(String, String)>);
    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a JSON object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                        let text = serde_json::from_str::<String>(value.get());
                        members.push((name, text.unwrap_or_else(|_| value.get().to_owned())));
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    Ok(serde_json::from_str::<Members>(object)?.0)
}

/// Lines of cells below a head, in columns.
pub(super) fn table(head: &[String], lines: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(line(head))
        .chain(lines.iter().map(|cells| line(cells)))
        .collect()
}
