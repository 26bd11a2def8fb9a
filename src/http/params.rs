//! The query string of a read: control parameters, and conditions on fields.
//!
//! ```text
//!  ?merchant=42 & window_start.ge=2026-…  & order=-total & limit=20 & key.limit=7
//!   condition     condition with operator   control words            the field named `limit`
//! ```
//!
//! Control parameters take precedence over fields; the prefix `key.` refers to a field.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::http::problem::{Problem, ProblemKind};
use crate::position::Offset;
use crate::schema::Numbers;
use crate::time::Epoch;
use crate::view::AsOf;
use crate::view::serve::{Op, OrderBy, WindowPick};

/// The control parameters. Everything else in a query string is a condition on a field.
pub(crate) const CONTROL_WORDS: [&str; 9] = [
    "after",
    "as_of",
    "cursor",
    "limit",
    "numbers",
    "order",
    "positions",
    "wait",
    "window",
];

/// A condition on a field; the value is unparsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawCondition<'a> {
    pub field: Cow<'a, str>,
    pub op: Op,
    pub value: Cow<'a, str>,
}

/// An offset that the response must include.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AfterOffset {
    pub source: String,
    pub partition: u32,
    pub offset: Offset,
}

/// A parsed query string.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Params<'a> {
    pub conditions: Vec<RawCondition<'a>>,
    pub after: Vec<AfterOffset>,
    pub as_of: Option<AsOf>,
    pub cursor: Option<Cow<'a, str>>,
    pub limit: Option<usize>,
    pub numbers: Numbers,
    pub order: Vec<OrderBy>,
    pub positions_left_out: bool,
    pub wait: Option<Duration>,
    pub window: Option<WindowPick>,
}

impl<'a> Params<'a> {
    /// Parses a query string, without its `?`.
    pub(crate) fn read(query: &'a str) -> Result<Self, Problem> {
        let mut params = Params::default();
        let mut seen = 0u16;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let value = decode(value)?;
            match CONTROL_WORDS.iter().position(|word| *word == name) {
                Some(at) => {
                    let repeatable = name == "after";
                    if seen & (1 << at) != 0 && !repeatable {
                        return Err(refused(&name, "given once", "given twice"));
                    }
                    seen |= 1 << at;
                    params.control(&name, value)?;
                }
                None => params.conditions.push(condition(name, value)),
            }
        }
        Ok(params)
    }

    fn control(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), Problem> {
        match name {
            "after" => {
                for one in value.split(',') {
                    let one = after(one)?;
                    self.after.push(one);
                }
            }
            "as_of" => self.as_of = Some(as_of(&value)?),
            "cursor" => self.cursor = Some(value),
            "limit" => self.limit = Some(limit(&value)?),
            "numbers" => self.numbers = numbers(&value)?,
            "order" => self.order = order(&value)?,
            "positions" => {
                self.positions_left_out = match &*value {
                    "true" => false,
                    "false" => true,
                    _ => return Err(refused(name, "`true` or `false`", &value)),
                }
            }
            "wait" => self.wait = Some(wait(&value)?),
            "window" => self.window = Some(window(&value)?),
            _ => {
                return Err(Problem::internal(format!(
                    "control parameter `{name}` is not handled"
                )));
            }
        }
        Ok(())
    }
}

/// The error for an invalid parameter.
pub(crate) fn refused(name: &str, expected: &str, got: &str) -> Problem {
    Problem::new(
        ProblemKind::Parameter,
        format!("`{name}` must be {expected}, got `{got}`"),
    )
    .member("parameter", name)
    .member("expected", expected)
    .member("got", got)
}

/// Default number of rows per page.
pub(crate) const LIMIT_DEFAULT: usize = 100;
/// Maximum number of rows in a response.
pub(crate) const LIMIT_MAX: usize = 10_000;

pub(crate) fn limit(text: &str) -> Result<usize, Problem> {
    match text.parse::<usize>() {
        Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(refused("limit", "a whole number from 1 to 10000", text)
            .hint("read the next rows with the cursor in `next`")),
    }
}

/// Parses an epoch (digits only) or a time.
pub(crate) fn as_of(text: &str) -> Result<AsOf, Problem> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Ok(epoch) = text.parse() {
            return Ok(AsOf::Epoch(Epoch(epoch)));
        }
    } else if let Ok(time) = text.parse() {
        return Ok(AsOf::Time(time));
    }
    let expected = "an epoch or a time such as 2026-11-23T03:00:00Z";
    Err(refused("as_of", expected, text).hint("a `+` in a time zone must be written `%2B` in a URL"))
}

/// Parses a bounded wait: whole numbers of `ms` or `s`, as in `250ms` and `2s`.
pub(crate) fn wait(text: &str) -> Result<Duration, Problem> {
    let ms = match text.strip_suffix("ms") {
        Some(ms) => ms.parse::<u64>().ok(),
        None => text
            .strip_suffix('s')
            .and_then(|s| s.parse::<u64>().ok())
            .and_then(|s| s.checked_mul(1_000)),
    };
    ms.map(Duration::from_millis)
        .ok_or_else(|| refused("wait", "a duration such as 250ms or 2s", text))
}

/// Parses how wide integers are written.
pub(crate) fn numbers(text: &str) -> Result<Numbers, Problem> {
    match text {
        "number" => Ok(Numbers::Exact),
        "string" => Ok(Numbers::Strings),
        _ => Err(refused("numbers", "`number` or `string`", text)),
    }
}

/// Parses comma-separated fields, with the prefix `-` for descending order.
pub(crate) fn order(text: &str) -> Result<Vec<OrderBy>, Problem> {
    let fields = text.split(',').map(|one| match one.strip_prefix('-') {
        Some(field) => OrderBy {
            field: field.to_owned(),
            descending: true,
        },
        None => OrderBy {
            field: one.to_owned(),
            descending: false,
        },
    });
    let fields: Vec<_> = fields.collect();
    match fields.iter().any(|by| by.field.is_empty()) {
        true => Err(refused("order", "fields such as -window_start,merchant", text)),
        false => Ok(fields),
    }
}

/// Parses `open`, `last_closed`, or the start of a window.
pub(crate) fn window(text: &str) -> Result<WindowPick, Problem> {
    match text {
        "open" => Ok(WindowPick::Open),
        "last_closed" => Ok(WindowPick::LastClosed),
        _ => match text.parse() {
            Ok(start) => Ok(WindowPick::Start(start)),
            Err(_) => Err(refused(
                "window",
                "`open`, `last_closed`, or the time at which it starts",
                text,
            )),
        },
    }
}

/// Parses `source:partition:offset`; the source's name may contain colons.
fn after(text: &str) -> Result<AfterOffset, Problem> {
    let mut parts = text.rsplitn(3, ':');
    let offset = parts
        .next()
        .and_then(|offset| offset.parse().ok())
        .filter(|offset| *offset >= 0);
    let partition = parts.next().and_then(|partition| partition.parse().ok());
    match (parts.next(), partition, offset) {
        (Some(source), Some(partition), Some(offset)) if !source.is_empty() => Ok(AfterOffset {
            source: source.to_owned(),
            partition,
            offset,
        }),
        _ => Err(refused("after", "source:partition:offset", text)),
    }
}

fn condition<'a>(name: Cow<'a, str>, value: Cow<'a, str>) -> RawCondition<'a> {
    let suffix = name
        .rsplit_once('.')
        .and_then(|(stem, op)| Some((stem.len(), Op::by_name(op)?)));
    let (stem, op) = suffix.unwrap_or((name.len(), Op::Eq));
    let start = match name[..stem].strip_prefix("key.") {
        Some(field) if !field.is_empty() => "key.".len(),
        _ => 0,
    };
    let field = match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[start..stem]),
        Cow::Owned(name) => Cow::Owned(name[start..stem].to_owned()),
    };
    RawCondition { field, op, value }
}

/// Decodes a query string: `%41` and `+`. Borrows if there is nothing to decode.
fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let is_whole = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    match decoded {
        // The library leaves invalid encodings unchanged.
        Ok(decoded) if text.split('%').skip(1).all(is_whole) => Ok(Cow::Owned(decoded.into_owned())),
        _ => {
            let detail = format!("`{text}` is not valid percent-encoding");
            Err(Problem::new(ProblemKind::Parameter, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::EventTime;

    fn read(query: &str) -> Params<'_> {
        Params::read(query).expect(query)
    }

    #[test]
    fn control_words_win_over_fields_and_key_escapes_them() {
        let params = read("merchant=42&limit=20&key.limit=7&key.limit.ge=3&key=a&window=open&numbers=string");
        assert_eq!(params.limit, Some(20));
        assert_eq!(params.window, Some(WindowPick::Open));
        assert_eq!(params.numbers, Numbers::Strings);
        let conditions: Vec<_> = params
            .conditions
            .iter()
            .map(|c| (&*c.field, c.op, &*c.value))
            .collect();
        let expected = [
            ("merchant", Op::Eq, "42"),
            ("limit", Op::Eq, "7"),
            ("limit", Op::Ge, "3"),
            ("key", Op::Eq, "a"),
        ];
        assert_eq!(conditions, expected);
    }

    #[test]
    fn operators_are_the_last_part_and_others_belong_to_the_name() {
        let params = read("a.b.ge=1&a.b=2&c.prefix=x%20y&d.ne=p+q");
        let conditions: Vec<_> = params
            .conditions
            .iter()
            .map(|c| (&*c.field, c.op, &*c.value))
            .collect();
        let expected = [
            ("a.b", Op::Ge, "1"),
            ("a.b", Op::Eq, "2"),
            ("c", Op::Prefix, "x y"),
            ("d", Op::Ne, "p q"),
        ];
        assert_eq!(conditions, expected);
    }

    #[test]
    fn after_takes_several_offsets() {
        let params = read("after=payments:3:18231,a:b:0:7&after=payments:4:1&wait=250ms");
        let after: Vec<_> = params
            .after
            .iter()
            .map(|a| (a.source.as_str(), a.partition, a.offset))
            .collect();
        assert_eq!(after, [("payments", 3, 18231), ("a:b", 0, 7), ("payments", 4, 1)]);
        assert_eq!(params.wait, Some(Duration::from_millis(250)));
    }

    #[test]
    fn as_of_is_an_epoch_or_a_time() {
        assert_eq!(
            read("as_of=1795402800123000").as_of,
            Some(AsOf::Epoch(Epoch(1_795_402_800_123_000)))
        );
        let time = Some(AsOf::Time(EventTime::from_millis(1_000)));
        assert_eq!(read("as_of=1970-01-01T00:00:01Z").as_of, time);
        assert_eq!(read("as_of=1970-01-01T01:00:01%2B01:00").as_of, time);
    }

    #[test]
    fn order_and_window_are_read() {
        let order: Vec<_> = read("order=-total,merchant")
            .order
            .into_iter()
            .map(|by| (by.field, by.descending))
            .collect();
        assert_eq!(
            order,
            [("total".to_owned(), true), ("merchant".to_owned(), false)]
        );
        let start = EventTime::from_secs(60);
        assert_eq!(
            read("window=1970-01-01T00:01:00Z").window,
            Some(WindowPick::Start(start))
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for query in [
            "limit=0",
            "limit=10001",
            "limit=-1",
            "limit=",
            "as_of=yesterday",
            "as_of=99999999999999999999999",
            "wait=2",
            "wait=-1s",
            "wait=99999999999999999999s",
            "after=payments:3",
            "after=payments:3:-1",
            "after=:3:1",
            "after=payments:x:1",
            "numbers=maybe",
            "positions=1",
            "order=a,,b",
            "order=-",
            "window=ajar",
            "limit=1&limit=2",
            "a=%zz",
            "a=%ff",
            "a=%4",
        ] {
            assert!(Params::read(query).is_err(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(query in "[ -~]{0,60}|[a-z.=&%0-9+:,]{0,60}") {
            let _outcome = Params::read(&query);
        }

        #[test]
        fn any_text_survives_being_encoded(text in any::<String>()) {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(&*decode(&encoded).unwrap(), &*text);
        }
    }
}
