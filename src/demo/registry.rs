//! An in-memory schema registry for demos: registers and returns schemas, without compatibility checks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;

use crate::error::{Error, Result};

/// Schemas by id, counted from 1, and the newest one of each subject.
#[derive(Default)]
struct StoredSchemas {
    texts: BTreeMap<u32, String>,
    newest: BTreeMap<String, u32>,
}

type Schemas = Arc<Mutex<StoredSchemas>>;

#[derive(Deserialize)]
struct RegisterRequest {
    schema: String,
}

/// Starts a registry on a free loopback port. It lives as long as the runtime. Returns its address as a URL.
pub(crate) fn start(runtime: &Handle) -> Result<String> {
    let listener = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .map_err(|error| Error::external("the demo's schema registry found no free port").detail(error))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let routes = Router::new()
        .route("/schemas/ids/{id}", get(by_id))
        .route("/subjects/{subject}/versions", post(register))
        .route("/subjects/{subject}/versions/latest", get(latest))
        .with_state(Schemas::default());
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(async move { axum::serve(listener, routes).await });
    Ok(format!("http://{address}"))
}

async fn by_id(State(schemas): State<Schemas>, Path(id): Path<u32>) -> Response {
    match schemas.lock().texts.get(&id) {
        Some(schema) => Json(json!({ "schema": schema })).into_response(),
        None => {
            let body = json!({ "error_code": 40403, "message": "Schema not found" });
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
    }
}

async fn register(State(schemas): State<Schemas>, Path(subject): Path<String>, body: String) -> Response {
    let Ok(RegisterRequest { schema }) = serde_json::from_str(&body) else {
        let body = json!({ "error_code": 42201, "message": "a body {\"schema\": …} is expected" });
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response();
    };
    let mut schemas = schemas.lock();
    let known = schemas
        .texts
        .iter()
        .find(|(_, text)| **text == schema)
        .map(|(id, _)| *id);
    let id = known.unwrap_or_else(|| schemas.texts.len() as u32 + 1);
    schemas.texts.insert(id, schema);
    schemas.newest.insert(subject, id);
    Json(json!({ "id": id })).into_response()
}

async fn latest(State(schemas): State<Schemas>, Path(subject): Path<String>) -> Response {
    let schemas = schemas.lock();
    let found = schemas
        .newest
        .get(&subject)
        .and_then(|id| Some((id, schemas.texts.get(id)?)));
    match found {
        Some((id, schema)) => {
            Json(json!({ "subject": subject, "version": 1, "id": id, "schema": schema })).into_response()
        }
        None => {
            let body = json!({ "error_code": 40401, "message": "Subject not found" });
            (StatusCode::NOT_FOUND, Json(body)).into_response()
        }
    }
}
