//! From a path to what is asked for.

use std::borrow::Cow;

use crate::http::params::decode_path;
use crate::http::problem::{Kind, Problem, nearest};

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Views,
    View(Cow<'a, str>),
    Row(Cow<'a, str>),
    Rows(Cow<'a, str>),
    Query,
    Epoch(&'a str),
    Live,
    Ready,
    Metrics,
}

/// The patterns, as metrics name them, by [`Route::index`]. The last one stands for every path that is none.
pub(crate) const PATTERNS: [&str; 10] = [
    "/v1/views",
    "/v1/views/{name}",
    "/v1/views/{name}/row",
    "/v1/views/{name}/rows",
    "/v1/query",
    "/v1/epochs/{epoch}",
    "/health/live",
    "/health/ready",
    "/metrics",
    "none",
];

/// [`Route::index`] of a path that is none.
pub(crate) const NONE: usize = PATTERNS.len() - 1;

impl<'a> Route<'a> {
    /// Reads a path.
    pub(crate) fn read(path: &'a str) -> Result<Self, Problem> {
        if let Some(rest) = path.strip_prefix("/v1/views/") {
            return match rest.split_once('/') {
                None if !rest.is_empty() => Ok(Route::View(decode_path(rest)?)),
                Some((name, "row")) if !name.is_empty() => Ok(Route::Row(decode_path(name)?)),
                Some((name, "rows")) if !name.is_empty() => Ok(Route::Rows(decode_path(name)?)),
                _ => Err(unknown(path)),
            };
        }
        match path {
            "/v1/views" => Ok(Route::Views),
            "/v1/query" => Ok(Route::Query),
            "/health/live" => Ok(Route::Live),
            "/health/ready" => Ok(Route::Ready),
            "/metrics" => Ok(Route::Metrics),
            _ => match path.strip_prefix("/v1/epochs/") {
                Some(epoch) if !epoch.is_empty() && !epoch.contains('/') => Ok(Route::Epoch(epoch)),
                _ => Err(unknown(path)),
            },
        }
    }

    /// Which of [`PATTERNS`] it is.
    pub(crate) fn index(&self) -> usize {
        match self {
            Route::Views => 0,
            Route::View(_) => 1,
            Route::Row(_) => 2,
            Route::Rows(_) => 3,
            Route::Query => 4,
            Route::Epoch(_) => 5,
            Route::Live => 6,
            Route::Ready => 7,
            Route::Metrics => 8,
        }
    }

    /// Whether it must be answered whatever the load: supervisors act on silence.
    pub(crate) fn is_vital(&self) -> bool {
        matches!(self, Route::Live | Route::Ready | Route::Metrics)
    }
}

fn unknown(path: &str) -> Problem {
    let problem = Problem::new(Kind::RouteUnknown, format!("nothing is at `{path}`"));
    match nearest(path, PATTERNS[..NONE].iter().copied()) {
        Some(pattern) => problem.hint(format!("did you mean `{pattern}`?")),
        None => problem.hint("GET /v1/views says what can be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_read_as_the_route_that_names_it() {
        for (index, pattern) in PATTERNS[..NONE].iter().enumerate() {
            let path = pattern.replace("{name}", "a%20b").replace("{epoch}", "7");
            assert_eq!(Route::read(&path).unwrap().index(), index, "{path}");
        }
        assert_eq!(
            Route::read("/v1/views/a%20b+c/row").unwrap(),
            Route::Row("a b+c".into())
        );
    }

    #[test]
    fn other_paths_are_none() {
        for path in [
            "/",
            "",
            "/v1",
            "/v1/views/",
            "/v1/views//row",
            "/v1/views/a/b",
            "/v1/views/a/row/",
            "/v1/epochs/",
            "/v1/epochs/1/2",
            "/v1/views/%zz",
        ] {
            assert!(Route::read(path).is_err(), "{path}");
        }
    }
}
