//! "Did you mean": the known name that is most similar to an unknown one.

/// The one of `names` that is most similar to `meant`, if it is similar enough. `meant` may match the last
/// part of a dotted name alone, because a setting's name may lack its section.
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

/// `; the nearest is …` to append to an error, if there is a similar name.
pub(crate) fn told<N: AsRef<str>>(meant: &str, names: impl IntoIterator<Item = N>) -> String {
    nearest(meant, names).map_or(String::new(), |name| {
        format!("; the nearest is `{}`", name.as_ref())
    })
}
