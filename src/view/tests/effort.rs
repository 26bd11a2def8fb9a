//! What a read costs: how many rows are taken out of the view, and how many are held at once.

use serde::{Deserialize, Serialize};

use super::*;
use crate::codec::tests::{peak, taken};

/// A value of about `WIDTH` bytes: far more than whatever else a row needs, so that bytes tell how many rows
/// there are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Wide {
    n: u64,
    padding: String,
}

const WIDTH: usize = 4 << 10;

const ROWS: u64 = 5_000;

/// So many rows that walks fetch ahead from each bucket, at most.
const AHEAD_MAX: usize = 64;

fn filled() -> (Arc<View>, Arc<Snapshot>) {
    let views = Views::new(1);
    let spec = ViewSpec {
        key: vec!["id".into()],
        ..ViewSpec::new("wide")
    };
    let view = views.define::<u64, Wide>(spec).unwrap();
    let change = |id: u64| Change {
        key: id,
        old: None,
        // Scattered, so that neither the first rows nor the last ones are the greatest.
        new: Some(Wide {
            n: id.wrapping_mul(2_654_435_761) % 1_000_003,
            padding: "x".repeat(WIDTH),
        }),
    };
    let mut writer = view.writer::<u64, Wide>(0);
    for id in 0..ROWS {
        writer.apply(Epoch(1), &mut vec![change(id)]).unwrap();
    }
    views.close(snapshot(Epoch(1)));
    let closed = views.closed().unwrap();
    (view, closed)
}

/// The answer, how many rows were taken out of the view for it, and how many were held at once.
fn costs(view: &View, query: &RowsQuery, at: &Snapshot) -> (Result<Page, ReadError>, usize, usize) {
    let before = taken();
    let mut answer = Err(ReadError::NotYet);
    let held = peak(|| answer = view.rows(query, at));
    (answer, (taken() - before) / WIDTH, held / WIDTH)
}

fn by(field: &str, descending: bool) -> Vec<OrderBy> {
    vec![OrderBy {
        field: field.into(),
        descending,
    }]
}

fn only(field: &str, op: Op, value: u64) -> Vec<Filter> {
    vec![Filter {
        field: field.into(),
        op,
        value: value.to_string().into(),
    }]
}

#[test]
fn an_order_looks_at_each_row_once_and_holds_a_page_of_them() {
    let (view, now) = filled();
    let mut query = RowsQuery {
        order: by("n", true),
        limit: 10,
        ..RowsQuery::default()
    };
    let (page, cloned, held) = costs(&view, &query, &now);
    let page = page.unwrap();
    assert_eq!(page.scanned, ROWS as usize);
    // What else is taken on the way is small, beside the page itself.
    let most = ROWS as usize + ROWS as usize / 20;
    assert!((ROWS as usize..most).contains(&cloned), "{cloned}");
    assert!(
        held <= 2 * query.limit + 1 + AHEAD_MAX,
        "{held} rows were held for a page of 10"
    );
    let mut expected: Vec<u64> = (0..ROWS)
        .map(|id| id.wrapping_mul(2_654_435_761) % 1_000_003)
        .collect();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let n = |page: &Page| -> Vec<Value> {
        page.rows
            .iter()
            .map(|row| json_row(&*view, row)["n"].clone())
            .collect()
    };
    let json = |n: &[u64]| n.iter().map(|n| json!(n)).collect::<Vec<_>>();
    assert_eq!(n(&page), json(&expected[..10]));
    query.cursor = page.next;
    let (page, _, held) = costs(&view, &query, &now);
    assert_eq!(n(&page.unwrap()), json(&expected[10..20]));
    // The cursor's own row is held besides; and the rows of the page with their fields.
    assert!(held <= 2 * query.limit + 2 + AHEAD_MAX, "{held}");
}

#[test]
fn what_would_look_at_too_many_rows_is_refused_before_it_looks_at_one() {
    let (view, now) = filled();
    for (filters, order) in [(vec![], by("n", true)), (only("n", Op::Ge, 5), by("n", false))] {
        let query = RowsQuery {
            filters,
            order,
            scanned_max: ROWS as usize - 1,
            ..RowsQuery::default()
        };
        let (answer, cloned, _) = costs(&view, &query, &now);
        let rows = Some(ROWS as usize);
        assert!(
            matches!(answer, Err(ReadError::TooMuch { rows: told, .. }) if told == rows),
            "{answer:?}"
        );
        assert_eq!(cloned, 0);
        let enough = RowsQuery {
            scanned_max: ROWS as usize,
            ..query
        };
        assert!(costs(&view, &enough, &now).0.is_ok());
    }
    // Where the key leaves rows out, how many are left shows as they are looked at.
    let query = |scanned_max| RowsQuery {
        filters: only("id", Op::Lt, 100),
        order: by("n", true),
        scanned_max,
        ..RowsQuery::default()
    };
    let page = costs(&view, &query(300), &now).0.unwrap();
    assert!(page.rows.len() == 100 && page.scanned < 300, "{}", page.scanned);
    let (answer, cloned, _) = costs(&view, &query(50), &now);
    assert!(
        matches!(answer, Err(ReadError::TooMuch { rows: None, .. })),
        "{answer:?}"
    );
    // Of each bucket a few rows more than are wanted are fetched.
    assert!(cloned <= 50 + 64 * 6, "{cloned}");
}

#[test]
fn a_condition_in_the_order_of_keys_ends_with_its_page() {
    let (view, now) = filled();
    let query = RowsQuery {
        filters: only("n", Op::Ge, 0),
        limit: 10,
        ..RowsQuery::default()
    };
    let (page, cloned, _) = costs(&view, &query, &now);
    let page = page.unwrap();
    assert!(page.rows.len() == 10 && page.next.is_some() && !page.cut_short);
    // A few rows ahead from each of the 64 buckets.
    assert!(
        page.scanned <= 11 && cloned <= 64 * 4 + 11,
        "{}, {cloned}",
        page.scanned
    );
}

#[test]
fn a_page_that_is_cut_short_goes_on_and_nothing_is_missed() {
    let (view, now) = filled();
    let value = |id: u64| id.wrapping_mul(2_654_435_761) % 1_000_003;
    // Rows that nobody finds among the first thousand.
    let rare = value(4_321);
    let mut query = RowsQuery {
        filters: only("n", Op::Eq, rare),
        scanned_max: 500,
        ..RowsQuery::default()
    };
    let (mut found, mut pages) = (Vec::new(), 0);
    loop {
        let page = costs(&view, &query, &now).0.unwrap();
        assert!(page.scanned <= 500);
        assert_eq!(
            page.cut_short,
            page.next.is_some(),
            "all that match fit into a page"
        );
        found.extend(page.rows);
        pages += 1;
        query.cursor = page.next;
        if query.cursor.is_none() {
            break;
        }
    }
    let expected: Vec<u64> = (0..ROWS).filter(|id| value(*id) == rare).collect();
    let ids: Vec<Value> = found
        .iter()
        .map(|row| json_row(&*view, row)["id"].clone())
        .collect();
    assert_eq!(ids, expected.iter().map(|id| json!(id)).collect::<Vec<_>>());
    assert!(pages >= 10, "{pages} pages of 500 rows looked at, for {ROWS}");
}

#[test]
fn time_that_is_over_cuts_a_page_short_and_ends_a_sort() {
    let (view, now) = filled();
    let over = Some(crate::clock::instant());
    let query = RowsQuery {
        filters: only("n", Op::Eq, 1_000_004),
        until: over,
        ..RowsQuery::default()
    };
    let page = costs(&view, &query, &now).0.unwrap();
    assert!(
        page.cut_short && page.next.is_some() && page.scanned < 1_000,
        "{}",
        page.scanned
    );
    let query = RowsQuery {
        order: by("n", true),
        until: over,
        ..RowsQuery::default()
    };
    let (answer, cloned, _) = costs(&view, &query, &now);
    assert_eq!(answer, Err(ReadError::TooLong));
    assert!(cloned <= 256 + AHEAD_MAX, "{cloned}");
}
