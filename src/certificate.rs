//! The files of a certificate, for clients of HTTP and for other processes of a cluster.

use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::{fmt::Display, path::Path};

use crate::error::Error;
#[cfg(feature = "tls")]
use crate::error::Result;

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those that lead to its CA, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

#[cfg(feature = "tls")]
impl CertificateFiles {
    /// Presents the certificate; `section` is where the settings name the files.
    ///
    /// # Errors
    /// If they cannot be read, or do not belong together.
    pub(crate) fn install(&self, section: &str, context: &mut openssl::ssl::SslContextBuilder) -> Result<()> {
        context
            .set_certificate_chain_file(&self.certificate)
            .map_err(|error| unfit(section, "certificate", &self.certificate, error))?;
        context
            .set_private_key_file(&self.key, openssl::ssl::SslFiletype::PEM)
            .and_then(|()| context.check_private_key())
            .map_err(|error| unfit(section, "key", &self.key, error))
    }
}

/// A file that is not what its setting should name.
#[cfg(feature = "tls")]
pub(crate) fn unfit(section: &str, what: &str, path: &Path, error: impl Display) -> Error {
    Error::definition(format!("cannot use `{section}.{what}`, {}", path.display())).detail(error)
}

/// Certificates are named, and there is nothing to use them.
#[cfg(not(feature = "tls"))]
pub(crate) fn no_tls() -> Error {
    Error::definition("this build has no TLS").hint("build with the feature `tls`")
}
