//! The settings of a cluster.

use crate::setting::{FlagScope, HOUR, S, Setting, SettingKind, count, flag, flagged, setting, text, time};

use super::of;

/// A path that may not be empty.
const FILE: &str = "a file";

/// The settings of the section `[cluster]`.
pub(super) static SETTINGS: &[Setting] = &[
    flagged(
        setting(
            "cluster.hosts",
            text(
                "addresses such as a:2101,b:2101, or a file with one per line",
                |s, text| {
                    of(s).cluster.hosts = Some(text.to_owned());
                    !text.is_empty()
                },
            ),
            "",
            "The addresses of all processes of a cluster, for each other: the same list in every process, or \
                a file with one per line. The first one has the ledger. Default: a single process",
        ),
        flag("hosts", "LIST", FlagScope::Run),
    ),
    flagged(
        setting(
            "cluster.process",
            text("a number, or `hostname`", |s, text| {
                of(s).cluster.process = Some(text.to_owned());
                text == "hostname" || text.parse::<usize>().is_ok()
            }),
            "",
            "The index of this process in `cluster.hosts`, from 0. `hostname`: the number at the end of the \
                host's name, as in a StatefulSet",
        ),
        flag("process", "N", FlagScope::Run),
    ),
    flagged(
        setting(
            "cluster.processes",
            count(1, 256, |s, n| of(s).cluster.processes = Some(n)),
            "",
            "The number of processes: so many of the first addresses are used. Default: all",
        ),
        flag("processes", "N", FlagScope::Run),
    ),
    setting(
        "cluster.secret",
        SettingKind::Secret(|s, secret| of(s).cluster.secret = Some(secret)),
        "",
        "What all processes of the cluster know and nobody else: each proves it before it is let in. At least \
            32 random characters",
    ),
    setting(
        "cluster.tls.certificate",
        text(FILE, |s, text| {
            of(s).cluster.tls[0] = Some(text.to_owned());
            !text.is_empty()
        }),
        "",
        "Certificate of this process (PEM), for the name or address by which `cluster.hosts` lists it. \
            Connections between processes are encrypted, and each end has to present one",
    ),
    setting(
        "cluster.tls.key",
        text(FILE, |s, text| {
            of(s).cluster.tls[1] = Some(text.to_owned());
            !text.is_empty()
        }),
        "",
        "Private key of that certificate (PEM)",
    ),
    setting(
        "cluster.tls.ca",
        text(FILE, |s, text| {
            of(s).cluster.tls[2] = Some(text.to_owned());
            !text.is_empty()
        }),
        "",
        "CA certificates (PEM) that sign the certificates of all processes",
    ),
    setting(
        "cluster.insecure",
        SettingKind::Switch(|s, on| of(s).cluster.insecure = on),
        "false",
        "Allow connections to other machines without TLS. For networks that nobody else can reach",
    ),
    setting(
        "cluster.formation_timeout",
        time(S, HOUR, |s, d| of(s).cluster.formation_timeout = d),
        "1m",
        "Maximum time from the start of a process until all others are connected",
    ),
    setting(
        "cluster.peer_timeout",
        time(S, HOUR, |s, d| of(s).cluster.peer_timeout = d),
        "10s",
        "A process that is silent for this long is lost: all others stop, and resume from the last \
            checkpoint when they are started again",
    ),
];
