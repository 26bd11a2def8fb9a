//! Explains the errors of an object store to people.

use std::io::{Error, ErrorKind};

use crate::disk::StoreFault;

const LOGIN: &str =
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary credentials, AWS_SESSION_TOKEN";
const RIGHTS: &str = "grant s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject \
    and s3:AbortMultipartUpload on its objects";
const BUCKET: &str = "create the bucket, or name an existing one in `checkpoint.store`";
const REGION: &str = "set the bucket's region: `checkpoint.region`, or AWS_REGION";
const AWAY: &str = "is the store running, and is `checkpoint.endpoint` (or AWS_ENDPOINT_URL) its address?";
const CLOCK: &str = "set this machine's clock";
const NOBODY: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on a machine that has a role";
const OTHER: &str =
    "check the store; failed requests are retried for 10 s, failed checkpoints with the next one";

/// Explains an error of a bucket whose URL is `root`.
pub(super) fn tell(error: &object_store::Error, root: &str) -> Error {
    let chain = chain(error);
    let text = chain.join(": ");
    let code = between(&text, "<Code>", "</Code>");
    let said = match (code, between(&text, "<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!(" ({code}: {message})"),
        (Some(code), None) => format!(" ({code})"),
        _ => String::new(),
    };
    if let Some(told) = code.and_then(|code| by_code(code, root, &said)) {
        return told;
    }
    if text.contains("incorrectly configured region") {
        return trouble(ErrorKind::Other, format!("`{root}` is in another region"), REGION);
    }
    let last = chain.last().map_or(text.as_str(), String::as_str);
    by_text(error, &text, root, last).unwrap_or_else(|| match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            let what = format!("access to `{root}` is denied{said}");
            trouble(ErrorKind::PermissionDenied, what, RIGHTS)
        }
        _ if code.is_some() => trouble(
            ErrorKind::Other,
            format!(
                "`{root}` refused the \
            request{said}"
            ),
            OTHER,
        ),
        _ => trouble(ErrorKind::Other, format!("`{root}`: {last}"), OTHER),
    })
}

fn trouble(kind: ErrorKind, what: String, hint: &'static str) -> Error {
    Error::new(kind, StoreFault { what, hint })
}

/// By S3's error code.
fn by_code(code: &str, root: &str, said: &str) -> Option<Error> {
    let denied = |what: String, hint| trouble(ErrorKind::PermissionDenied, what, hint);
    Some(match code {
        "NoSuchBucket" => no_bucket(root),
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "ExpiredToken"
        | "InvalidSecurity" => denied(format!("`{root}` does not accept the credentials{said}"), LOGIN),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException" => {
            let what = format!("`{root}` is in another region{said}");
            trouble(ErrorKind::Other, what, REGION)
        }
        "AccessDenied" | "AllAccessDisabled" => denied(format!("access to `{root}` is denied{said}"), RIGHTS),
        "RequestTimeTooSkewed" => denied(
            format!("the clocks of `{root}` and this machine differ{said}"),
            CLOCK,
        ),
        _ => return None,
    })
}

/// By the client library's message, of which `last` is the innermost cause.
fn by_text(error: &object_store::Error, text: &str, root: &str, last: &str) -> Option<Error> {
    use object_store::Error as E;
    let says_one_of = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let denied = |what: String, hint| trouble(ErrorKind::PermissionDenied, what, hint);
    Some(match error {
        E::NotFound { .. } => ErrorKind::NotFound.into(),
        // Of a listing nothing more is said.
        E::Generic { .. } if text.contains("status code: 404") => ErrorKind::NotFound.into(),
        E::AlreadyExists { .. } | E::Precondition { .. } => ErrorKind::AlreadyExists.into(),
        _ if says_one_of(&["Missing AccessKeyId", "Missing SecretAccessKey"]) => denied(
            format!("the credentials for `{root}` are incomplete: {last}"),
            LOGIN,
        ),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => return None,
        // Credentials were looked for at the machine itself, where a cloud would give them.
        _ if says_one_of(&["/latest/api/token", "/latest/meta-data", "169.254."]) => {
            denied(format!("there are no credentials for `{root}`: {last}"), NOBODY)
        }
        _ if is_away(text) => trouble(
            ErrorKind::NotConnected,
            format!("`{root}` does not answer: {last}"),
            AWAY,
        ),
        _ => return None,
    })
}

pub(super) fn no_bucket(root: &str) -> Error {
    let what = format!("there is no bucket `{root}`");
    Error::other(StoreFault { what, hint: BUCKET })
}

fn is_away(text: &str) -> bool {
    let signs = [
        "error sending request",
        "tcp connect",
        "dns error",
        "timed out",
        "connection closed",
    ];
    let text = text.to_lowercase();
    signs.iter().any(|sign| text.contains(sign))
}

/// The error with all its causes.
fn chain(error: &object_store::Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts
}

fn between<'t>(text: &'t str, begin: &str, end: &str) -> Option<&'t str> {
    let rest = &text[text.find(begin)? + begin.len()..];
    rest.find(end).map(|at| &rest[..at])
}
