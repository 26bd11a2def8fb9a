//! Rows that bytes without names can't hold: known before there is any where the type shows it, and else when
//! the row is written. Never by what a restart makes of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use thalweg::checkpoint::store::CheckpointStore;
use thalweg::disk::sim::SimDisk;
use thalweg::ledger::MemoryLog;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{self, CheckpointSchedule};
use thalweg::runtime::{self, RunSettings, Service};
use thalweg::sequencer::{Cuts, ScriptedEpoch};
use thalweg::source::{Environment, Source, Substitute};
use thalweg::testing::Harness;
use thalweg::testing::memory::Memory;
use thalweg::view::AsOf;
use thalweg::view::serve::RowsQuery;
use thalweg::{Epoch, Flow, Kind};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Customer {
    id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vip: Option<u8>,
    level: u8,
    name: String,
}

/// As [`Customer`], where no type shows what is left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Account {
    id: u32,
    #[serde(default, skip_serializing_if = "is_fifty")]
    cents: u8,
    level: u8,
    name: String,
}

fn is_fifty(cents: &u8) -> bool {
    *cents == 50
}

fn accounts() -> Flow {
    dataflow("accounts", |flow: Dataflow| {
        let accounts = flow.table("accounts", Kafka::topic("a").json::<Account>().keyed::<u32>());
        accounts.view("accounts_view");
    })
}

#[test]
fn a_type_that_leaves_fields_out_is_refused_before_there_is_a_row() {
    let customers = dataflow("customers", |flow: Dataflow| {
        let customers = flow.table("customers", Kafka::topic("c").json::<Customer>().keyed::<u32>());
        customers.view("customers_view");
    });
    let mut test = Harness::of(customers);
    test.empty("customers").epoch();
    let Err(error) = test.run() else {
        panic!("it runs");
    };
    assert_eq!(error.kind(), Kind::Definition);
    let text = error.to_string();
    for part in [
        "table customers: `",
        "unfit::Customer`: field `vip` of `Customer` was left out (`skip_serializing_if`)",
        "hint: remove `skip_serializing_if` from the field",
        "checkpoint.interval=0s",
    ] {
        assert!(text.contains(part), "no {part}: {text}");
    }
}

const ROWS: u32 = 200;

struct World {
    log: MemoryLog,
    disk: SimDisk,
}

impl World {
    fn start(&self, epoch: u64) -> Service {
        let substitutes = || {
            let account = |id: u32| {
                let (cents, level) = if id == 150 { (50, 1) } else { (id as u8 % 40, 2) };
                let name = format!("x\u{1}{id}");
                (
                    id,
                    Some(Account {
                        id,
                        cents,
                        level,
                        name,
                    }),
                )
            };
            let rows = (0..ROWS).map(|id| (EventTime(0), Ok(account(id))));
            let memory = Memory::new(vec![rows.collect()]).segment_ends(vec![vec![ROWS as usize; 2]]);
            let opened = Source::<(u32, Option<Account>)>::open(memory, &Environment::default()).unwrap();
            let substitute = Substitute {
                driver: opened.driver.clone(),
                opened: Some(Box::new(opened)),
            };
            HashMap::from([("accounts".to_owned(), substitute)])
        };
        let source = SourceId::of("accounts");
        let epochs = VecDeque::from([ScriptedEpoch {
            epoch: Epoch(epoch),
            hi: vec![(PartitionId { source, partition: 0 }, i64::from(ROWS))],
            idle: Vec::new(),
        }]);
        let due = CheckpointSchedule::At(BTreeSet::from([Epoch(epoch)]));
        let place = CheckpointStore::new(Arc::new(self.disk.clone()), Path::new("/checkpoints"));
        let settings = RunSettings {
            store: runtime::LedgerLocation::Memory(self.log.clone()),
            cuts: Cuts::Script(epochs),
            checkpoints: Some(checkpoints::CheckpointSettings::new(place, due)),
            substitutes: Some(Arc::new(substitutes)),
            ..RunSettings::default()
        };
        Service::start(&accounts(), settings).unwrap()
    }
}

/// Why the checkpoint came to nothing, once it did.
fn trouble(service: &Service) -> String {
    for _ in 0..3_000 {
        if let Some(trouble) = service.checkpoint_trouble() {
            return trouble;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no checkpoint failed; halted by {:?}", service.halt().error());
}

#[test]
fn a_row_that_leaves_a_field_out_fails_the_checkpoint_and_never_changes() {
    let world = World {
        log: MemoryLog::default(),
        disk: SimDisk::new(),
    };
    for epoch in [1, 2] {
        let service = world.start(epoch);
        assert_eq!(service.restored(), None, "no checkpoint counts");
        let text = trouble(&service);
        for part in [
            "unfit::Account` can't be kept in a checkpoint",
            "field `cents` of `Account` was left out",
            "in the state of `",
            "accounts",
            "hint: remove `skip_serializing_if`",
        ] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        // The service itself goes on, and its rows are what they were.
        let views = service.join().unwrap();
        let snapshot = views.snapshot(AsOf::Epoch(Epoch(epoch))).unwrap();
        let query = RowsQuery {
            limit: 1000,
            ..RowsQuery::default()
        };
        let rows = views
            .get("accounts_view")
            .unwrap()
            .rows(&query, &snapshot)
            .unwrap()
            .rows;
        assert_eq!(rows.len(), ROWS as usize);
        let row = format!("{:?}", rows[150].row);
        // What serde leaves out is shown as null; what follows is in its own place.
        assert!(
            row.contains("Int(150), Null, Int(1), Text(\"x\\u{1}150\")"),
            "{row}"
        );
    }
}
