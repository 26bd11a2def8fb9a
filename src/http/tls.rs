//! TLS for clients, with a certificate that may be replaced while the service runs.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use openssl::ssl::{Ssl, SslAcceptor, SslContext, SslMethod};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::certificate::CertificateFiles;
use crate::clock;
use crate::error::{Error, Result};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Accepts TLS connections.
pub(crate) struct TlsAcceptor {
    files: CertificateFiles,
    current: Mutex<CurrentCertificate>,
}

struct CurrentCertificate {
    context: Arc<SslContext>,
    changed: [Option<SystemTime>; 2],
    looked: Instant,
}

impl TlsAcceptor {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// If they cannot be read, or do not belong together.
    pub(crate) fn of(files: &CertificateFiles) -> Result<Self> {
        let changed = changed(files);
        Ok(Self {
            current: Mutex::new(CurrentCertificate {
                context: Arc::new(context(files)?),
                changed,
                looked: clock::instant(),
            }),
            files: files.clone(),
        })
    }

    fn context(&self) -> Arc<SslContext> {
        let mut current = self.current.lock();
        let now = clock::instant();
        if now - current.looked >= LOOK_EVERY {
            current.looked = now;
            let changed = changed(&self.files);
            if changed != current.changed {
                match context(&self.files) {
                    Ok(context) => {
                        (current.context, current.changed) = (Arc::new(context), changed);
                        tracing::info!("the certificate for HTTP has been replaced");
                    }
                    // The two files may not be written at once: tried again at the next look.
                    Err(error) => tracing::warn!(%error, "the former certificate stays in use"),
                }
            }
        }
        current.context.clone()
    }

    /// The handshake with a client.
    pub(crate) async fn accept(&self, socket: TcpStream) -> std::io::Result<SslStream<TcpStream>> {
        let ssl = Ssl::new(&self.context())?;
        let mut stream = SslStream::new(ssl, socket)?;
        std::pin::Pin::new(&mut stream)
            .accept()
            .await
            .map_err(std::io::Error::other)?;
        Ok(stream)
    }
}

fn changed(files: &CertificateFiles) -> [Option<SystemTime>; 2] {
    [&files.certificate, &files.key].map(|file| {
        let file = std::fs::metadata(file);
        file.and_then(|file| file.modified()).ok()
    })
}

fn context(files: &CertificateFiles) -> Result<SslContext> {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())
        .map_err(|error| Error::internal("cannot set up TLS").detail(error))?;
    files.install("http.tls", &mut acceptor)?;
    Ok(acceptor.build().into_context())
}
