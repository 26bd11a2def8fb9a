//! Where a registry is, who logs in, and whom it is trusted to be.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{ClientBuilder, RequestBuilder, Url};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// How a registry is reached.
#[derive(Clone)]
pub struct RegistryAccess {
    /// Its address, as in `https://registry:8081`.
    pub url: String,
    /// Who logs in.
    pub login: Credentials,
    /// Certificates (PEM) that its own may be signed by, besides those that the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// How long it may not know a schema id before it is believed, see [`UNKNOWN_WAIT`].
    pub unknown_wait: Duration,
}

/// As long as a registry's follower may take to learn of a new schema; meanwhile the records of it wait.
pub const UNKNOWN_WAIT: Duration = Duration::from_secs(30);

impl fmt::Debug for RegistryAccess {
    /// Without the address, as that may hold a password too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

/// Who logs in.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nobody.
    #[default]
    Nobody,
    /// A name with a password (HTTP basic authentication).
    Password(String, Secret),
    /// Whoever has this token (bearer authentication).
    Token(Secret),
}

impl RegistryAccess {
    /// Of a registry that asks for no login.
    pub fn open(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            login: Credentials::Nobody,
            ca_pem: None,
            unknown_wait: UNKNOWN_WAIT,
        }
    }

    /// The address, if requests can be sent there.
    pub(super) fn base(&self) -> Result<Url> {
        let mut base = Url::parse(&self.url).map_err(|error| wrong().detail(error))?;
        if base.cannot_be_a_base() || !["http", "https"].contains(&base.scheme()) {
            return Err(wrong()
                .detail(format!("its scheme is `{}`", base.scheme()))
                .hint("give it as http://host:port or https://host:port"));
        }
        if base.scheme() == "https" && !cfg!(feature = "tls") {
            return Err(wrong()
                .detail("it is https, and this build has no TLS")
                .hint("build with the feature `tls`"));
        }
        base.set_query(None);
        base.set_fragment(None);
        Ok(base)
    }

    /// Has the client trust what this names.
    pub(super) fn trusted(&self, client: ClientBuilder) -> Result<ClientBuilder> {
        let Some(pem) = &self.ca_pem else {
            return Ok(client);
        };
        add_certificates(client, pem)
    }
}

#[cfg(feature = "tls")]
fn add_certificates(client: ClientBuilder, pem: &[u8]) -> Result<ClientBuilder> {
    let unread = || {
        Error::definition("cannot use the certificates for the schema registry")
            .hint("`registry.ca_file` names a PEM file: -----BEGIN CERTIFICATE----- and so on")
    };
    let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| unread().detail(error))?;
    if certificates.is_empty() {
        return Err(unread().detail("there is none in the file"));
    }
    Ok(certificates
        .into_iter()
        .fold(client, ClientBuilder::add_root_certificate))
}

#[cfg(not(feature = "tls"))]
fn add_certificates(_client: ClientBuilder, _pem: &[u8]) -> Result<ClientBuilder> {
    Err(wrong()
        .detail("certificates are named, and this build has no TLS")
        .hint("build with the feature `tls`"))
}

pub(super) fn wrong() -> Error {
    Error::definition("cannot use the address of the schema registry")
}

impl Credentials {
    /// Puts it into a request.
    pub(super) fn into(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Nobody => request,
            Self::Password(name, password) => request.basic_auth(name, Some(password.reveal())),
            Self::Token(token) => request.bearer_auth(token.reveal()),
        }
    }

    /// What somebody else wrote, without what was sent to them in confidence.
    pub(super) fn hide_in(&self, text: &str) -> String {
        match self {
            Self::Nobody => text.to_owned(),
            Self::Password(name, password) => {
                let sent = Secret::new(STANDARD.encode(format!("{name}:{}", password.reveal())));
                sent.hide_in(&password.hide_in(text))
            }
            Self::Token(token) => token.hide_in(text),
        }
    }
}
