//! The location of checkpoints: next to the ledgers, or in one place for all dataflows.
//!
//! ```text
//!   nothing is said           data/spend/checkpoints/                    beside data/spend/ledger.log
//!   file:///mnt/checkpoints   /mnt/checkpoints/thalweg/spend/            by app and dataflow
//!   s3://bucket/prefix        s3://bucket/prefix/thalweg/spend/…         an object a file
//! ```

use std::path::Path;
use std::sync::Arc;

use super::store::CheckpointStore;
use crate::disk::HostDisk;
use crate::error::{Error, Result};

/// The default directory of checkpoints in a dataflow's directory.
pub const FOLDER: &str = "checkpoints";

/// The location of checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointLocation {
    /// A URL, if they are not next to the ledgers.
    pub url: Option<String>,
    /// The endpoint of an object store other than Amazon's.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
}

/// Whether checkpoints can be stored under a URL.
pub fn is_known(url: &str) -> bool {
    if let Some(path) = url.strip_prefix("file://") {
        return path.starts_with('/');
    }
    let bucket = url.strip_prefix("s3://").and_then(|rest| rest.split('/').next());
    bucket.is_some_and(|bucket| !bucket.is_empty() && !bucket.contains(['@', ':', '?', '#', '%']))
}

impl CheckpointLocation {
    /// The checkpoints of one dataflow, whose ledger is in `ledger`. A service passes `keeps` to cache what
    /// it fetches for its lifetime, because it needs it again; a single inspection does not.
    ///
    /// # Errors
    /// If this build does not support the location, or the environment has no credentials for it.
    pub fn store(&self, app: &str, dataflow: &str, ledger: &Path, keeps: bool) -> Result<CheckpointStore> {
        let Some(url) = &self.url else {
            return Ok(CheckpointStore::new(Arc::new(HostDisk), &ledger.join(FOLDER)));
        };
        let url = url.trim_end_matches('/');
        let own = format!("{url}/{}/{}", segment(app), segment(dataflow));
        match keeps {
            true => self.at(&own, ledger, true),
            false => self.at(&own, &std::env::temp_dir(), false),
        }
    }

    /// The checkpoints under this URL, which includes app and dataflow.
    ///
    /// # Errors
    /// Those of [`store`](Self::store).
    pub fn at(&self, url: &str, scratch: &Path, keeps: bool) -> Result<CheckpointStore> {
        let url = url.trim_end_matches('/');
        if let Some(path) = url.strip_prefix("file://") {
            return Ok(CheckpointStore::new(Arc::new(HostDisk), Path::new(path)));
        }
        let bucket = url.strip_prefix("s3://").and_then(|rest| rest.split('/').next());
        let bucket = bucket.ok_or_else(|| {
            Error::definition(format!("checkpoints cannot be stored in `{url}`"))
                .hint("name a bucket, s3://bucket/prefix, or a directory, file:///path")
        })?;
        self.bucket(bucket, url, scratch, keeps)
    }

    #[cfg(feature = "object-store")]
    fn bucket(&self, bucket: &str, url: &str, scratch: &Path, keeps: bool) -> Result<CheckpointStore> {
        use crate::disk::object::{BucketAccess, ObjectFiles};
        let access = BucketAccess {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
        };
        let files = ObjectFiles::s3(bucket, &access, scratch, keeps);
        let files = files.map_err(|error| super::cannot("use", Path::new(url), &error))?;
        Ok(CheckpointStore::new(Arc::new(files), Path::new(url)))
    }

    #[cfg(not(feature = "object-store"))]
    fn bucket(&self, _bucket: &str, url: &str, _scratch: &Path, _keeps: bool) -> Result<CheckpointStore> {
        Err(
            Error::definition(format!("this build cannot store checkpoints in `{url}`"))
                .detail("it was built without the feature `object-store`")
                .hint("build with `--features object-store`, or name a directory: file:///path"),
        )
    }
}

/// Encodes a name as a path segment: characters with a special meaning become `=2F` and the like.
fn segment(name: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let dots = name.bytes().all(|byte| byte == b'.');
    let written = name.bytes().map(|byte| match byte {
        byte if plain(&byte) || (byte == b'.' && !dots) => char::from(byte).to_string(),
        byte => format!("={byte:02X}"),
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(url: Option<&str>, app: &str, dataflow: &str) -> String {
        let place = CheckpointLocation {
            url: url.map(str::to_owned),
            ..CheckpointLocation::default()
        };
        let store = place
            .store(app, dataflow, Path::new("/data/spend"), false)
            .unwrap();
        store.dir.display().to_string()
    }

    #[test]
    fn two_apps_and_two_dataflows_have_places_of_their_own() {
        assert_eq!(dir(None, "shop", "spend"), "/data/spend/checkpoints");
        let file = Some("file:///mnt/c/");
        assert_eq!(dir(file, "shop", "spend"), "/mnt/c/shop/spend");
        assert_eq!(dir(file, "a/b", ".."), "/mnt/c/a=2Fb/=2E=2E");
        assert_ne!(dir(file, "a=2Fb", "c"), dir(file, "a/b", "c"));
    }

    #[test]
    fn urls_that_mean_nothing_are_known() {
        for url in ["s3://bucket", "s3://bucket/a/b", "file:///mnt"] {
            assert!(is_known(url), "{url}");
        }
        for url in [
            "s3://",
            "s3:///x",
            "s3://key:secret@bucket/x",
            "file://host/x",
            "gs://bucket",
            "/mnt",
            "",
        ] {
            assert!(!is_known(url), "{url}");
        }
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn a_build_without_object_stores_says_so() {
        let place = CheckpointLocation {
            url: Some("s3://bucket/prefix".into()),
            ..CheckpointLocation::default()
        };
        let refused = place
            .store("shop", "spend", Path::new("/data"), false)
            .err()
            .unwrap();
        assert!(
            refused.to_string().contains("feature `object-store`"),
            "{refused}"
        );
    }
}
