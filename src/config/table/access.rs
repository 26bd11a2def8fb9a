//! The settings of who may read over HTTP.

use std::path::PathBuf;

use super::of;
use crate::http::access::OpenRoutes;
use crate::setting::{Setting, SettingKind, setting, text};

/// Settings of the section `[http]` about certificates and tokens.
pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "http.tls.certificate",
        text("a file", |s, text| {
            of(s).http_certificate[0] = Some(PathBuf::from(text));
            !text.is_empty()
        }),
        "",
        "Certificate of the service (PEM, with those that lead to its CA): answers are encrypted. Read again \
            when it changes",
    ),
    setting(
        "http.tls.key",
        text("a file", |s, text| {
            of(s).http_certificate[1] = Some(PathBuf::from(text));
            !text.is_empty()
        }),
        "",
        "Private key of that certificate (PEM)",
    ),
    setting(
        "http.tokens_file",
        text("a file", |s, text| {
            of(s).http.tokens_file = Some(PathBuf::from(text));
            !text.is_empty()
        }),
        "",
        "Tokens that clients present as `Authorization: Bearer …`: `thalweg token new NAME --file FILE` makes \
            one. Read again when it changes. Default: nobody needs one",
    ),
    setting(
        "http.open",
        text(
            "`health`, `metrics`, both separated by a comma, or `none`",
            |s, text| {
                OpenRoutes::parse(text)
                    .map(|open| of(s).http.open = open)
                    .is_some()
            },
        ),
        "health",
        "What needs no token",
    ),
    setting(
        "http.insecure",
        SettingKind::Switch(|s, on| of(s).http.insecure = on),
        "false",
        "Allow addresses beyond loopback without TLS or tokens. For networks that nobody else can reach, or \
            behind a proxy that does both",
    ),
];
