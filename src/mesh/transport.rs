//! A connection: TCP, with or without TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::certificate::{self, CertificateFiles};
use crate::error::Result;

/// The files of a process's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Its certificate and key.
    pub own: CertificateFiles,
    /// The certificates of those who may sign a process's certificate, in PEM.
    pub ca: PathBuf,
}

/// A connection.
pub(crate) enum Transport {
    /// Not encrypted.
    Plain(TcpStream),
    /// Encrypted.
    #[cfg(feature = "tls")]
    Tls(Box<openssl::ssl::SslStream<TcpStream>>),
}

impl Transport {
    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Limits how long a read and a write may take.
    pub(crate) fn limit(&self, read: Option<Duration>, write: Option<Duration>) -> io::Result<()> {
        self.socket().set_read_timeout(read)?;
        self.socket().set_write_timeout(write)
    }

    /// Ends a direction, as far as that is possible.
    pub(crate) fn end_writing(&mut self) {
        #[cfg(feature = "tls")]
        if let Self::Tls(stream) = self {
            let _gone = stream.shutdown();
        }
        let _gone = self.socket().shutdown(Shutdown::Write);
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Turns sockets into connections.
#[derive(Clone)]
pub(crate) enum Security {
    /// As they are.
    Plain,
    /// With TLS, and a certificate at each end.
    #[cfg(feature = "tls")]
    Tls(std::sync::Arc<openssl::ssl::SslContext>),
}

impl Security {
    /// Reads the certificates, if there are any.
    ///
    /// # Errors
    /// If a file cannot be read, or is not what it should be; or if the build has no TLS.
    pub(crate) fn of(files: Option<&TlsFiles>) -> Result<Self> {
        let Some(files) = files else {
            return Ok(Self::Plain);
        };
        Self::with_certificates(files)
    }

    #[cfg(not(feature = "tls"))]
    fn with_certificates(_files: &TlsFiles) -> Result<Self> {
        Err(certificate::no_tls())
    }

    #[cfg(feature = "tls")]
    fn with_certificates(files: &TlsFiles) -> Result<Self> {
        use openssl::ssl::{SslContext, SslMethod, SslVerifyMode, SslVersion};
        const SECTION: &str = "cluster.tls";
        let internal = |error| crate::error::Error::internal("cannot set up TLS").detail(error);
        let mut context = SslContext::builder(SslMethod::tls()).map_err(internal)?;
        context
            .set_min_proto_version(Some(SslVersion::TLS1_3))
            .map_err(internal)?;
        files.own.install(SECTION, &mut context)?;
        context
            .set_ca_file(&files.ca)
            .map_err(|error| certificate::unfit(SECTION, "ca", &files.ca, error))?;
        context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        context.set_session_cache_mode(openssl::ssl::SslSessionCacheMode::OFF);
        Ok(Self::Tls(std::sync::Arc::new(context.build())))
    }

    /// A connection that this process opened, to the host with this name.
    pub(crate) fn dialed(&self, socket: TcpStream, host: &str) -> io::Result<Transport> {
        match self {
            Self::Plain => {
                let _named_by_the_handshake = host;
                Ok(Transport::Plain(socket))
            }
            #[cfg(feature = "tls")]
            Self::Tls(context) => {
                let mut ssl = openssl::ssl::Ssl::new(context)?;
                match host.parse() {
                    Ok(ip) => ssl.param_mut().set_ip(ip)?,
                    Err(_name) => {
                        ssl.param_mut().set_host(host)?;
                        ssl.set_hostname(host)?;
                    }
                }
                let stream = ssl.connect(socket).map_err(io::Error::other)?;
                Ok(Transport::Tls(Box::new(stream)))
            }
        }
    }

    /// A connection that this process accepted.
    pub(crate) fn accepted(&self, socket: TcpStream) -> io::Result<Transport> {
        match self {
            Self::Plain => Ok(Transport::Plain(socket)),
            #[cfg(feature = "tls")]
            Self::Tls(context) => {
                let stream = openssl::ssl::Ssl::new(context)?
                    .accept(socket)
                    .map_err(io::Error::other)?;
                Ok(Transport::Tls(Box::new(stream)))
            }
        }
    }
}
