//! "Did you mean": the known name that is most like one that nobody knows.

/// The one of `names` that was probably meant by `meant`, if one is near enough. Of a name with dots the last
/// part may have been meant alone: a setting's name may lack its section.
///
/// ```
/// use thalweg::suggest::nearest;
/// assert_eq!(nearest("merchnt", ["orders", "merchants"]), Some("merchants"));
/// assert_eq!(nearest("adress", ["workers", "http.address"]), Some("http.address"));
/// assert_eq!(nearest("xyz", ["orders", "merchants"]), None);
/// ```
pub fn nearest<N: AsRef<str>>(meant: &str, names: impl IntoIterator<Item = N>) -> Option<N> {
    let likeness = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        strsim::jaro_winkler(meant, name).max(strsim::jaro_winkler(meant, last) - 0.01)
    };
    let scored = names.into_iter().map(|name| (likeness(name.as_ref()), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness > 0.75)
        .map(|(_, name)| name)
}

/// `; the nearest is …` for the end of an error's line, if one is near.
pub(crate) fn told<N: AsRef<str>>(meant: &str, names: impl IntoIterator<Item = N>) -> String {
    nearest(meant, names).map_or(String::new(), |name| {
        format!("; the nearest is `{}`", name.as_ref())
    })
}
