//! Who may read: bearer tokens, of which only hashes are stored.
//!
//! ```text
//!   thalweg token new dashboard --file tokens ─▶ tw_3xJ…  shown once          tokens: `dashboard <hash>`
//!   Authorization: Bearer tw_3xJ… ─▶ hash ─▶ in the file? ─▶ the request is served, or 401
//! ```
//!
//! A token is 32 random bytes, so a plain hash of it reveals nothing, and there is nothing to slow down. The
//! file is read again when it changes: a line that is removed is refused from then on.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use parking_lot::Mutex;

use crate::clock;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a token begins with, so that it is recognised where it does not belong.
const PREFIX: &str = "tw_";

/// Which routes need no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRoutes {
    /// `/health/live` and `/health/ready`.
    pub health: bool,
    /// `/metrics`.
    pub metrics: bool,
}

impl OpenRoutes {
    /// Reads a list of `health` and `metrics`, separated by commas.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut open = Self {
            health: false,
            metrics: false,
        };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "health" => open.health = true,
                "metrics" => open.metrics = true,
                "none" => {}
                _ => return None,
            }
        }
        Some(open)
    }

    fn contain(self, pattern: &str) -> bool {
        (self.health && pattern.starts_with("/health/")) || (self.metrics && pattern == "/metrics")
    }
}

/// Checks tokens.
pub(crate) struct Access {
    file: PathBuf,
    open: OpenRoutes,
    known: Mutex<KnownTokens>,
}

struct KnownTokens {
    hashes: Vec<blake3::Hash>,
    changed: Option<SystemTime>,
    looked: Instant,
}

impl Access {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, or a line is malformed.
    pub(crate) fn of(file: &Path, open: OpenRoutes) -> Result<Self> {
        let (hashes, changed) = read(file)?;
        if hashes.is_empty() {
            tracing::warn!(file = %file.display(), "no token exists: every read over HTTP is refused");
        }
        Ok(Self {
            file: file.to_owned(),
            open,
            known: Mutex::new(KnownTokens {
                hashes,
                changed,
                looked: clock::instant(),
            }),
        })
    }

    /// Whether a request may be served.
    pub(crate) fn admits(&self, pattern: &str, headers: &HeaderMap) -> bool {
        self.open.contain(pattern) || given(headers).is_some_and(|token| self.knows(token))
    }

    fn knows(&self, token: &str) -> bool {
        let mut known = self.known.lock();
        let now = clock::instant();
        if now - known.looked >= LOOK_EVERY {
            known.looked = now;
            if modified(&self.file) != known.changed {
                match read(&self.file) {
                    Ok((hashes, changed)) => (known.hashes, known.changed) = (hashes, changed),
                    Err(error) => tracing::warn!(%error, "cannot read the tokens; the former ones apply"),
                }
            }
        }
        let hash = blake3::hash(token.as_bytes());
        // Compared in constant time; and all of them, so that the time says nothing about which one it is.
        known
            .hashes
            .iter()
            .fold(false, |found, known| found | (*known == hash))
    }
}

fn given(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|file| file.modified()).ok()
}

fn read(file: &Path) -> Result<(Vec<blake3::Hash>, Option<SystemTime>)> {
    let changed = modified(file);
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::definition(format!("cannot read `http.tokens_file`, {}", file.display()))
            .detail(error)
            .hint("`thalweg token new NAME --file FILE` makes a token")
    })?;
    let mut hashes = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let hash = line
            .split_whitespace()
            .nth(1)
            .and_then(|hash| blake3::Hash::from_hex(hash).ok());
        hashes.push(hash.ok_or_else(|| {
            Error::definition(format!("{}:{number}: not a token's line", file.display()))
                .hint("a line is a name and a hash; `thalweg token new NAME --file FILE` adds one")
        })?);
    }
    Ok((hashes, changed))
}

/// Makes a token; returns it, and the line to be stored.
pub(crate) fn new_token(name: &str) -> (Secret, String) {
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(clock::random::<32>()));
    let line = format!("{name} {}", blake3::hash(token.as_bytes()).to_hex());
    (Secret::new(token), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[test]
    fn a_token_is_let_in_until_its_line_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let (token, line) = new_token("dashboard");
        let (other, _) = new_token("other");
        std::fs::write(&file, format!("# people\n{line} # since May\n")).unwrap();
        let open = OpenRoutes::parse("health").unwrap();
        let access = Access::of(&file, open).unwrap();
        assert!(access.admits("/v1/views", &with_token(token.reveal())));
        assert!(!access.admits("/v1/views", &with_token(other.reveal())));
        assert!(!access.admits("/v1/views", &HeaderMap::new()));
        assert!(!access.admits("/metrics", &HeaderMap::new()));
        assert!(access.admits("/health/ready", &HeaderMap::new()));
        assert!(!line.contains(token.reveal()));
        std::fs::write(&file, "").unwrap();
        {
            let mut known = access.known.lock();
            (known.changed, known.looked) = (None, known.looked - 2 * LOOK_EVERY);
        }
        assert!(!access.admits("/v1/views", &with_token(token.reveal())));
    }

    #[test]
    fn malformed_lines_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        std::fs::write(&file, "\ndashboard 12ab\n").unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("tokens:2"), "{error}");
        let error = read(&dir.path().join("missing")).unwrap_err().to_string();
        assert!(error.contains("token new"), "{error}");
    }

    #[test]
    fn open_routes_are_listed() {
        let both = OpenRoutes {
            health: true,
            metrics: true,
        };
        assert_eq!(OpenRoutes::parse("health, metrics"), Some(both));
        let neither = OpenRoutes {
            health: false,
            metrics: false,
        };
        assert_eq!(OpenRoutes::parse("none"), Some(neither));
        assert_eq!(OpenRoutes::parse("views"), None);
    }
}
