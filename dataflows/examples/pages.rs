//! A live dashboard of a web site: top pages, unique visitors, visits.
//!
//! ```text
//!   views ─┬─ by page,    five minutes, every ten seconds ─▶ view pages
//!          ├─ of all,     minutes ────────────────────────▶ view minutes
//!          └─ by visitor, until half an hour of silence ──▶ view visits
//! ```

use dataflows::Random;
use thalweg::demo::{Demo, now};
use thalweg::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct PageView {
    page: String,
    visitor: i64,
    at_ms: i64,
}

fn pages(flow: Dataflow) {
    let views = Kafka::topic("web.views.v1")
        .avro::<PageView>()
        .event_time(|v| EventTime::from_millis(v.at_ms))
        .lateness(Duration::from_secs(2));
    let views = flow.source("views", views);

    let last_minutes = Hopping::of(Duration::from_secs(300)).every(Duration::from_secs(10));
    views
        .key_by("page", |v| v.page.clone())
        .window("pages", last_minutes)
        .keep(Duration::from_secs(3600))
        .aggregate(|a| (a.count(), a.approx_count_distinct(|v| v.visitor)))
        .view_with("pages", |view| view.fields(["views", "visitors"]));

    views
        .key_by("site", |_| "all".to_owned())
        .window("minutes", Tumbling::of(Duration::from_secs(60)))
        .aggregate(|a| (a.count(), a.approx_count_distinct(|v| v.visitor)))
        .view_with("minutes", |view| view.fields(["views", "visitors"]));

    views
        .key_by("visitor", |v| v.visitor)
        .window("visits", Sessions::gap(Duration::from_secs(1800)))
        .aggregate(|a| {
            (
                a.count(),
                a.first(|v| v.at_ms, |v| v.page.clone()),
                a.last(|v| v.at_ms, |v| v.page.clone()),
            )
        })
        .view_with("visits", |view| view.fields(["views", "entry", "exit"]));
}

/// The dataflow, with demo data.
fn flow() -> thalweg::Flow {
    dataflow("pages", pages).demo(
        demo,
        &[
            "/v1/views/pages/rows?window=open&order=-views&limit=5",
            "/v1/views/minutes/row?site=all&window=open",
            "/v1/views/visits/rows?order=-views&limit=3",
        ],
    )
}

fn main() -> ExitCode {
    thalweg::main([flow()])
}

const PARTITIONS: u32 = 4;
const VISITORS: u64 = 5000;
const VIEW: &str = include_str!("../../schemas/web.views.v1.avsc");
const PAGES: [&str; 10] = [
    "/",
    "/search",
    "/products/boots",
    "/products/tents",
    "/products/stoves",
    "/cart",
    "/checkout",
    "/blog/packing-light",
    "/help/returns",
    "/careers",
];

/// Views by five thousand visitors, some seconds late.
fn demo(demo: &Demo) -> Result<()> {
    let topic = demo.avro("web.views.v1", PARTITIONS, None, VIEW)?;
    let mut views = topic.events()?;
    let mut random = Random::new(42);
    demo.paced(|id| {
        let late_ms = match random.one_in(50) {
            true => random.below(1500),
            false => 0,
        };
        let view = PageView {
            page: PAGES[random.skewed(PAGES.len() as u64) as usize].to_owned(),
            visitor: random.skewed(VISITORS) as i64,
            at_ms: now().millis() - late_ms as i64,
        };
        views.send(id as u32, &view)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg::testing::Harness;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Page {
        page: String,
        window_end: String,
        views: u64,
        visitors: u64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Visit {
        visitor: i64,
        window_start: String,
        views: u64,
        entry: String,
        exit: String,
    }

    fn view(page: &str, visitor: i64, seconds: i64) -> PageView {
        PageView {
            page: page.into(),
            visitor,
            at_ms: seconds * 1000,
        }
    }

    #[test]
    fn views_and_visitors_are_counted_in_every_window() {
        let mut test = Harness::of(flow());
        test.feed(
            "views",
            0,
            [view("/", 1, 301), view("/", 1, 305), view("/", 2, 309)],
        );
        test.feed("views", 1, [view("/cart", 1, 601), view("/", 3, 611)]);
        let epoch = test.epoch();
        let run = test.workers(2).run().unwrap();
        let pages = run.rows::<Page>("pages", epoch).unwrap();
        let home: Vec<&Page> = pages.iter().filter(|row| row.page == "/").collect();
        // 30 windows have the first three views, and another 30 the last one, none of them both.
        assert_eq!(home.len(), 60);
        assert!(
            home[..30].iter().all(|row| (row.views, row.visitors) == (3, 2)),
            "{home:?}"
        );
        assert!(home[30..].iter().all(|row| (row.views, row.visitors) == (1, 1)));
        assert_eq!(home[0].window_end, "1970-01-01T00:05:10Z");
        assert_eq!(home[59].window_end, "1970-01-01T00:15:10Z");
    }

    #[test]
    fn a_visit_ends_after_half_an_hour() {
        let mut test = Harness::of(flow());
        test.feed("views", 0, [view("/", 7, 100), view("/cart", 7, 1899)]);
        let first = test.epoch();
        test.feed("views", 0, [view("/help/returns", 7, 3699)]);
        let second = test.epoch();
        let run = test.workers(2).run().unwrap();
        let visits = |epoch| run.rows::<Visit>("visits", epoch).unwrap();
        let bought = || Visit {
            visitor: 7,
            window_start: "1970-01-01T00:01:40Z".into(),
            views: 2,
            entry: "/".into(),
            exit: "/cart".into(),
        };
        let returned = Visit {
            visitor: 7,
            window_start: "1970-01-01T01:01:39Z".into(),
            views: 1,
            entry: "/help/returns".into(),
            exit: "/help/returns".into(),
        };
        assert_eq!(visits(first), [bought()]);
        assert_eq!(visits(second), [bought(), returned]);
    }
}
