//! A real server of S3's protocol, and what a test does to it: objects that are damaged, a crash.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use object_store::aws::AmazonS3Builder;
use thalweg::disk::FileStore;
use thalweg::disk::object::ObjectFiles;

use super::server::Server;

const SCRIPT: &str = "s3.sh";
/// The bucket that is there.
pub const BUCKET: &str = "thalweg";
/// What is never to be shown.
pub const SECRET: &str = "thalweg-secret";
/// Who may log in, as the environment says it.
pub const LOGIN: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "thalweg"),
    ("AWS_SECRET_ACCESS_KEY", SECRET),
];

/// A server with one bucket, on 127.0.0.1. It ends when it is dropped, and with the test process at the
/// latest.
pub struct Bucket {
    server: Server,
}

impl Bucket {
    /// Starts a server of this test's own: one that it may kill. It takes a second or two.
    pub fn start() -> Self {
        Self {
            server: Server::start(SCRIPT, &[], serves),
        }
    }

    /// The server that all tests of this process share: for those that use prefixes of their own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Bucket> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Its address, the same after a restart.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port())
    }

    /// Kills the process.
    pub fn kill9(&self) {
        self.server.end(libc::SIGKILL);
    }

    /// Starts it again on the same port, with the objects it had.
    pub fn restart(&self) {
        self.server.start_again(serves);
    }

    /// Files of the bucket, as another process would come by them: it has read nothing yet.
    pub fn files(&self, scratch: &Path) -> Arc<dyn FileStore> {
        let store = AmazonS3Builder::new()
            .with_endpoint(self.url())
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_access_key_id(LOGIN[0].1)
            .with_secret_access_key(LOGIN[1].1)
            .with_disable_bulk_delete(true)
            .build()
            .expect("a client");
        let files = ObjectFiles::new(Arc::new(store), &format!("s3://{BUCKET}"), scratch, true);
        Arc::new(files.expect("a runtime"))
    }

    /// Where the server keeps the objects of a URL in the bucket.
    pub fn folder(&self, url: &Path) -> PathBuf {
        let key = url
            .strip_prefix(format!("s3://{BUCKET}"))
            .expect("of this bucket");
        self.server.folder().join("objects").join(BUCKET).join(key)
    }
}

/// It answers, if only that nobody has logged in.
fn serves(port: u16) -> bool {
    use std::io::{Read, Write};
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.write_all(b"GET /thalweg HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    });
    asked.is_ok_and(|answer| &answer[..9] == b"HTTP/1.1 ")
}
