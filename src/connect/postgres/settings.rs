//! What may be set of Postgres. Known to every build, so that one without the client can say so.

use std::path::PathBuf;
use std::time::Duration;

use crate::finding::Finding;
use crate::secret::Secret;
use crate::setting::extensions::Extensions;
use crate::setting::{MS, S, Setting, SettingKind, setting, text, time};

/// Where Postgres is, and how to talk to it.
///
/// ```
/// use thalweg::connect::postgres::PostgresSettings;
/// use thalweg::{setting::extensions::Extensions, source::Environment};
/// let env = Environment {
///     connectors: Extensions::of(PostgresSettings::at("postgresql://thalweg@127.0.0.1:5432/reports")),
///     ..Environment::default()
/// };
/// ```
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgresql://USER@HOST:PORT/DATABASE`, without a password; empty: none was named.
    pub url: String,
    /// The user's password.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted, and whether the server has to prove who it is.
    pub tls: Tls,
    /// Certificates (PEM) that the server's may be signed by, besides those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long one statement may take, by the server's clock; the client waits 5 s longer.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
}

/// How a connection is protected. The names are libpq's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    Disable,
    /// Encrypted, with whoever answers.
    Require,
    /// Encrypted, and the server's certificate is one of its host, signed by somebody who is trusted.
    #[default]
    VerifyFull,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            password: None,
            tls: Tls::default(),
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(20),
            lock_timeout: Duration::from_secs(10),
        }
    }
}

impl PostgresSettings {
    /// The server and database of this URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }
}

/// The connector's name: the section of its settings.
pub(super) const NAME: &str = "postgres";

fn of(values: &mut Extensions) -> &mut PostgresSettings {
    values.get_mut()
}

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "postgres.url",
        text(
            "postgresql://USER@HOST:PORT/DATABASE, without a password",
            |s, text| {
                of(s).url = text.to_owned();
                is_url(text)
            },
        ),
        "",
        "Server, database and user of sinks (feature `postgres`). With several hosts, separated by \
         commas, the \
         first that accepts writes is used",
    ),
    setting(
        "postgres.password",
        SettingKind::Secret(|s, secret| of(s).password = Some(secret)),
        "",
        "Password of that user",
    ),
    setting(
        "postgres.tls",
        text("disable, require or verify-full", |s, text| {
            let tls = match text {
                "disable" => Tls::Disable,
                "require" => Tls::Require,
                "verify-full" => Tls::VerifyFull,
                _ => return false,
            };
            of(s).tls = tls;
            true
        }),
        "verify-full",
        "`disable` does not encrypt; `require` encrypts without checking the certificate; `verify-full` also \
         checks the certificate and the host name",
    ),
    setting(
        "postgres.ca_file",
        text("a file", |s, text| {
            of(s).ca_file = Some(PathBuf::from(text));
            !text.is_empty()
        }),
        "",
        "CA certificates (PEM) to trust for the server, in addition to the system's",
    ),
    setting(
        "postgres.connect_timeout",
        time(MS, Duration::from_secs(25), |s, d| of(s).connect_timeout = d),
        "10s",
        "Maximum time to connect to one host",
    ),
    setting(
        "postgres.statement_timeout",
        time(S, Duration::from_secs(25), |s, d| of(s).statement_timeout = d),
        "20s",
        "Maximum time of one statement. After it, the transaction is rolled back and tried again. A large \
         epoch \
         takes many statements",
    ),
    setting(
        "postgres.lock_timeout",
        time(MS, Duration::from_secs(25), |s, d| of(s).lock_timeout = d),
        "10s",
        "Maximum time that a statement waits for a lock",
    ),
];

/// The form of a URL. Whatever stands behind a `?` would get past the settings above.
pub(super) fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"));
    let Some((login, place)) = rest.and_then(|rest| rest.split_once('@')) else {
        return false;
    };
    let Some((hosts, database)) = place.split_once('/') else {
        return false;
    };
    let names = [login, hosts, database];
    names.iter().all(|name| !name.is_empty()) && !login.contains(':') && !text.contains(['?', '#', ' '])
}

/// What is wrong with settings taken together.
pub(super) fn conflicting(settings: &Extensions) -> Option<(String, String)> {
    let own = settings.get::<PostgresSettings>()?;
    if !cfg!(feature = "postgres") && !own.url.is_empty() {
        let wrong = "is set, but this build lacks the feature `postgres`";
        return Some(("postgres.url".into(), wrong.into()));
    }
    if own.tls == Tls::Disable && own.ca_file.is_some() {
        let wrong = "has no effect with `postgres.tls` disable";
        return Some(("postgres.ca_file".into(), wrong.into()));
    }
    None
}

/// What they mean for who can read along.
pub(super) fn warnings(settings: &Extensions) -> Vec<Finding> {
    let Some(own) = settings
        .get::<PostgresSettings>()
        .filter(|own| !own.url.is_empty())
    else {
        return Vec::new();
    };
    let is_near = ["@127.0.0.1", "@localhost", "@[::1]"]
        .iter()
        .any(|host| own.url.contains(host));
    match own.tls {
        Tls::Disable if !is_near => {
            let what = "rows for Postgres are sent unencrypted: `postgres.tls` is disable";
            vec![
                Finding::warning(what)
                    .hint("use verify-full, with `postgres.ca_file` for a private certificate authority"),
            ]
        }
        Tls::Require => {
            let what = "the server is not authenticated: its certificate is not verified";
            vec![Finding::warning(what).hint("set `postgres.ca_file`, and `postgres.tls` to verify-full")]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_user_host_and_database_and_no_password() {
        for url in [
            "postgresql://thalweg@db:5432/reports",
            "postgres://thalweg@db/reports",
            "postgresql://thalweg@a:5432,b:5433/reports",
        ] {
            assert!(is_url(url), "{url}");
        }
        for url in [
            "",
            "db:5432",
            "postgresql://db:5432/reports",
            "postgresql://thalweg:secret@db/reports",
            "postgresql://thalweg@db",
            "postgresql://thalweg@db/",
            "postgresql://thalweg@db/reports?sslmode=disable",
            "mysql://thalweg@db/reports",
        ] {
            assert!(!is_url(url), "{url}");
        }
    }

    #[test]
    fn what_is_said_to_no_effect_is_told() {
        let mut own = PostgresSettings::at("postgresql://thalweg@db/reports");
        (own.tls, own.ca_file) = (Tls::Disable, Some("ca.pem".into()));
        let wrong = conflicting(&Extensions::of(own.clone()));
        let expected = match cfg!(feature = "postgres") {
            true => "postgres.ca_file",
            false => "postgres.url",
        };
        assert_eq!(wrong.unwrap().0, expected);
        assert_eq!(warnings(&Extensions::of(own)).len(), 1);
        let near = PostgresSettings {
            tls: Tls::Disable,
            ..PostgresSettings::at("postgresql://thalweg@127.0.0.1/reports")
        };
        assert_eq!(warnings(&Extensions::of(near)), []);
    }
}
