//! `why`: what the windows of a view wait for.

use serde::Deserialize;

use crate::cli::{ServerArguments, query};
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct WhyAnswer {
    time: Option<String>,
    watermark: Option<String>,
    reasons: Vec<ReasonAnswer>,
}

#[derive(Deserialize)]
struct ReasonAnswer {
    kind: String,
    source: Option<String>,
    sink: Option<String>,
    detail: String,
    hint: String,
}

pub(super) fn run(view: &str, json: bool, at: &ServerArguments) -> Result<()> {
    let base = query::base_url(at)?;
    let url = format!("{base}/v1/why-not-closed?view={}", query::encode(view));
    let body = query::fetch(&url, base, at)?;
    match json {
        true => println!("{body}"),
        false => print!("{}", text(view, &body)?),
    }
    Ok(())
}

fn text(view: &str, body: &str) -> Result<String> {
    let unexpected = |error| Error::request("the service answers something else").detail(error);
    let answer: WhyAnswer = serde_json::from_str(body).map_err(unexpected)?;
    let mut text = format!(
        "`{view}`: newest closed epoch {}, watermark {}\n",
        answer.time.as_deref().unwrap_or("none"),
        answer.watermark.as_deref().unwrap_or("none yet")
    );
    if answer.reasons.is_empty() {
        text.push_str("\nnothing holds it back\n");
    }
    for reason in answer.reasons {
        let of = match (&reason.source, &reason.sink) {
            (Some(source), _) => format!(" source `{source}`:"),
            (None, Some(sink)) => format!(" sink `{sink}`:"),
            (None, None) => String::new(),
        };
        let (kind, detail, hint) = (&reason.kind, &reason.detail, &reason.hint);
        text.push_str(&format!("\n{kind}:{of} {detail}\n  hint: {hint}\n"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_with_what_to_do() {
        let body = r#"{"view":"spend","epoch":5,"time":"1970-01-01T00:00:00.000005Z","watermark":null,"reasons":[
            {"kind":"silent","source":"payments","partition":3,"detail":"nothing more to read","hint":"wait"},
            {"kind":"sink","sink":"audit","detail":"rows wait","hint":"restore it"}]}"#;
        assert_eq!(
            text("spend", body).unwrap(),
            "`spend`: newest closed epoch 1970-01-01T00:00:00.000005Z, watermark none yet\n\n\
             silent: source `payments`: nothing more to read\n  hint: wait\n\n\
             sink: sink `audit`: rows wait\n  hint: restore it\n"
        );
    }
}
