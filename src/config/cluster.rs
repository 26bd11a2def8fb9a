//! The settings of a cluster of processes.

use std::path::Path;
use std::time::Duration;

use crate::certificate::CertificateFiles;
use crate::mesh::Cluster;
use crate::mesh::transport::TlsFiles;
use crate::secret::Secret;

/// The settings of a cluster, as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterSettings {
    /// Addresses, or the file that lists them.
    pub hosts: Option<String>,
    /// The index of this process, or `hostname`.
    pub process: Option<String>,
    /// The number of processes, if not all hosts are used.
    pub processes: Option<usize>,
    /// What all processes know.
    pub secret: Option<Secret>,
    /// Certificate, key, and the certificates that sign.
    pub tls: [Option<String>; 3],
    /// Whether connections to other machines may do without TLS.
    pub insecure: bool,
    /// Maximum time until all processes are connected.
    pub formation_timeout: Duration,
    /// When a silent process counts as lost.
    pub peer_timeout: Duration,
}

/// A setting that is wrong, and why.
type Mistake = (&'static str, String);

impl ClusterSettings {
    /// This process's place in the cluster; `None` without one.
    pub(crate) fn resolve(&self) -> Result<Option<Cluster>, Mistake> {
        let Some(hosts) = &self.hosts else {
            return match (&self.process, self.processes) {
                (Some(_), _) => Err(("cluster.process", "needs `cluster.hosts`".into())),
                (None, Some(2..)) => Err(("cluster.processes", "needs `cluster.hosts`".into())),
                _ => Ok(None),
            };
        };
        let mut addresses = addresses(hosts).map_err(|why| ("cluster.hosts", why))?;
        if let Some(processes) = self.processes {
            if processes > addresses.len() {
                let why = format!("is {processes}, but `cluster.hosts` lists {}", addresses.len());
                return Err(("cluster.processes", why));
            }
            addresses.truncate(processes);
        }
        let process = self
            .process(addresses.len())
            .map_err(|why| ("cluster.process", why))?;
        if addresses.len() == 1 {
            return Ok(None);
        }
        let tls = self.tls_files()?;
        let beyond = addresses.iter().find(|address| !is_loopback(address));
        if let (Some(beyond), None, false) = (beyond, &tls, self.insecure) {
            let why = format!(
                "lists {beyond}, on another machine, so connections need certificates: set `cluster.tls.*`; \
                 or, in a network that nobody else can reach, `cluster.insecure`"
            );
            return Err(("cluster.hosts", why));
        }
        Ok(Some(Cluster {
            process,
            addresses,
            secret: self.secret.clone(),
            tls,
            formation_timeout: self.formation_timeout,
            peer_timeout: self.peer_timeout,
        }))
    }

    fn process(&self, processes: usize) -> Result<usize, String> {
        let Some(process) = &self.process else {
            return match processes {
                1 => Ok(0),
                _ => Err(format!(
                    "is missing: 0 to {}, a different one in each process",
                    processes - 1
                )),
            };
        };
        let index = match process.parse() {
            Ok(index) => index,
            Err(_) => ordinal(&hostname()?)?,
        };
        match index < processes {
            true => Ok(index),
            false => Err(format!("is {index}, but the last process is {}", processes - 1)),
        }
    }

    fn tls_files(&self) -> Result<Option<TlsFiles>, Mistake> {
        match &self.tls {
            [None, None, None] => Ok(None),
            [Some(certificate), Some(key), Some(ca)] => Ok(Some(TlsFiles {
                own: CertificateFiles {
                    certificate: certificate.into(),
                    key: key.into(),
                },
                ca: ca.into(),
            })),
            [None, ..] => Err(("cluster.tls.certificate", "is missing".into())),
            [_, None, _] => Err(("cluster.tls.key", "is missing".into())),
            [.., None] => Err(("cluster.tls.ca", "is missing".into())),
        }
    }
}

/// The addresses of all processes, separated by commas, or one per line of a file.
fn addresses(hosts: &str) -> Result<Vec<String>, String> {
    let path = Path::new(hosts);
    let text = match hosts.contains(':') && !path.exists() {
        true => hosts.replace(',', "\n"),
        false => std::fs::read_to_string(path).map_err(|error| format!("cannot read {hosts}: {error}"))?,
    };
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    let addresses: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let is_address = |address: &&String| {
        let parts = address.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if let Some(wrong) = addresses.iter().find(|address| !is_address(address)) {
        return Err(format!("contains `{wrong}`; an address is HOST:PORT"));
    }
    let twice = addresses
        .iter()
        .enumerate()
        .find(|(at, address)| addresses[..*at].contains(address));
    if let Some((_, twice)) = twice {
        return Err(format!("contains {twice} twice"));
    }
    match addresses.is_empty() {
        true => Err("lists no address".into()),
        false => Ok(addresses),
    }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn hostname() -> Result<String, String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map(|name| name.trim().to_owned())
        .map_err(|error| format!("cannot be told from the host's name: {error}"))
}

/// The number at the end of a host's name, as those of a StatefulSet have.
fn ordinal(name: &str) -> Result<usize, String> {
    let digits = name.rsplit('-').next().unwrap_or_default();
    digits
        .parse()
        .map_err(|_| format!("is `hostname`, but the name of this host, `{name}`, does not end in a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(hosts: &str, process: &str) -> ClusterSettings {
        ClusterSettings {
            hosts: Some(hosts.to_owned()),
            process: (!process.is_empty()).then(|| process.to_owned()),
            ..ClusterSettings::default()
        }
    }

    #[test]
    fn hosts_are_listed_or_in_a_file() {
        let listed = settings("localhost:1, 127.0.0.1:2,[::1]:3", "2")
            .resolve()
            .unwrap()
            .unwrap();
        assert_eq!(listed.addresses, ["localhost:1", "127.0.0.1:2", "[::1]:3"]);
        assert_eq!(listed.process, 2);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts.txt");
        std::fs::write(
            &file,
            "# all of them\nlocalhost:1\n\nlocalhost:2 # the second\nlocalhost:3\n",
        )
        .unwrap();
        let in_file = ClusterSettings {
            processes: Some(2),
            ..settings(file.to_str().unwrap(), "1")
        };
        let in_file = in_file.resolve().unwrap().unwrap();
        assert_eq!(in_file.addresses, ["localhost:1", "localhost:2"]);
        assert!(
            settings("localhost:1", "").resolve().unwrap().is_none(),
            "one process is no cluster"
        );
    }

    #[test]
    fn mistakes_name_the_setting() {
        let wrong = |settings: ClusterSettings| settings.resolve().unwrap_err();
        let cases = [
            (
                settings("localhost:1,localhost:2", ""),
                "cluster.process",
                "0 to 1",
            ),
            (
                settings("localhost:1,localhost:2", "2"),
                "cluster.process",
                "the last process is 1",
            ),
            (
                settings("localhost:1,localhost", "0"),
                "cluster.hosts",
                "HOST:PORT",
            ),
            (settings("localhost:1,localhost:1", "0"), "cluster.hosts", "twice"),
            (settings("/nowhere/hosts", "0"), "cluster.hosts", "cannot read"),
            (
                settings("a.example:1,localhost:1", "0"),
                "cluster.hosts",
                "cluster.tls",
            ),
            (
                ClusterSettings {
                    processes: Some(3),
                    ..settings("localhost:1,localhost:2", "0")
                },
                "cluster.processes",
                "lists 2",
            ),
            (
                ClusterSettings {
                    tls: [Some("a".into()), None, Some("c".into())],
                    ..settings("localhost:1,localhost:2", "0")
                },
                "cluster.tls.key",
                "missing",
            ),
            (
                ClusterSettings {
                    process: Some("0".into()),
                    ..ClusterSettings::default()
                },
                "cluster.process",
                "cluster.hosts",
            ),
        ];
        for (settings, name, why) in cases {
            let (wrong_name, wrong_why) = wrong(settings);
            assert_eq!(wrong_name, name, "{wrong_why}");
            assert!(wrong_why.contains(why), "{wrong_why}");
        }
    }

    #[test]
    fn a_pod_is_told_by_its_name() {
        assert_eq!(ordinal("thalweg-12"), Ok(12));
        assert!(ordinal("thalweg").unwrap_err().contains("`thalweg`"));
    }
}
