//! Readiness of a running service, for `/health/ready` and the log.
//!
//! ```text
//!   (cluster ─▶) restore ─▶ replay ─▶ catch_up ─▶ ready, once and for all
//!   (a checkpoint)  (what was bound)  (what the sources held)     trouble: at any time, for as long as it lasts
//! ```

use std::time::{Duration, Instant};

use crate::clock;
use crate::codec::registry::Registry;
use crate::error::count;
use crate::health::{Dependency, Readiness};
use crate::runtime::Service;
use crate::runtime::progress::{CaughtUp, RemainingRecords};

/// The interval of progress messages while catching up.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Observes a service regularly.
pub(super) struct ReadinessWatcher<'a> {
    service: &'a Service,
    readiness: &'a Readiness,
    registry: Option<&'a Registry>,
    when: CaughtUp,
    /// Whether it has been ready: from then on, only problems count.
    was_ready: bool,
    told: Instant,
}

impl<'a> ReadinessWatcher<'a> {
    /// Not ready until the service has caught up according to `when`.
    pub(super) fn new(
        service: &'a Service,
        readiness: &'a Readiness,
        registry: Option<&'a Registry>,
        when: CaughtUp,
    ) -> Self {
        Self {
            service,
            readiness,
            registry,
            when,
            was_ready: false,
            told: clock::instant(),
        }
    }

    /// Updates the readiness. Returns whether the service has become ready for the first time.
    pub(super) fn look(&mut self) -> bool {
        self.troubles();
        if self.was_ready {
            return false;
        }
        self.progress();
        if self.readiness.is_ready() {
            tracing::info!("ready");
            self.was_ready = true;
            return true;
        }
        if clock::instant() - self.told > TELL_EVERY {
            self.told = clock::instant();
            let reasons = self.readiness.reasons().into_iter();
            let waits: Vec<String> = reasons.map(|(what, why)| format!("{what}: {why}")).collect();
            tracing::info!(waiting_for = waits.join("; "), "not ready yet");
        }
        false
    }

    /// Reports the progress of the start.
    fn progress(&self) {
        let (service, readiness) = (self.service, self.readiness);
        match service.is_forming() {
            true => readiness.wait_for("cluster", "waiting for the other processes of the cluster"),
            false => readiness.clear("cluster"),
        }
        match service.restoring() {
            Some((epoch, share)) => readiness.wait_for(
                "restore",
                format!(
                    "{:.0} % of the checkpoint of {}",
                    share * 100.0,
                    epoch.opened_at()
                ),
            ),
            None => readiness.clear("restore"),
        }
        let left = service.catching_up(self.when);
        match service.replaying() {
            Some((closed, last)) => {
                let closed =
                    closed.map_or_else(|| "nothing yet".into(), |epoch| epoch.opened_at().to_string());
                readiness.wait_for("replay", format!("at {closed}, of {}", last.opened_at()));
            }
            None => readiness.clear("replay"),
        }
        match &left {
            Some(left) => readiness.wait_for("catch_up", in_words(left)),
            None => readiness.clear("catch_up"),
        }
        readiness.set_records_left(left.unwrap_or_default());
        if service.is_live() {
            readiness.clear("starting");
        }
    }

    /// Reports unhealthy external dependencies.
    fn troubles(&self) {
        let (service, readiness) = (self.service, self.readiness);
        let mut troubles = service.troubles();
        // The service itself looks twice a second.
        let status = self.registry.map(Registry::status);
        if let Some(status) = status.filter(|status| status.away.is_some()) {
            troubles.insert(Dependency::Registry, status.to_string());
        }
        match troubles.is_empty() {
            true => readiness.clear("trouble"),
            false => {
                let listed = troubles.iter().map(|(what, why)| format!("{what}: {why}"));
                readiness.wait_for("trouble", listed.collect::<Vec<_>>().join("; "));
            }
        }
        readiness.mention("checkpoints", service.checkpoint_trouble());
        readiness.mention("sinks", service.sink_trouble());
        readiness.mention("transactions", service.open_transactions());
    }
}

fn in_words(left: &RemainingRecords) -> String {
    let listed = left.iter().filter(|(_, left)| **left != Some(0));
    let listed: Vec<String> = listed
        .map(|(source, left)| match left {
            Some(left) => format!("{} of `{source}`", count(*left, "record")),
            None => format!("`{source}` has not been reached yet"),
        })
        .collect();
    match listed.is_empty() {
        true => "nothing is left to be read".into(),
        false => format!("left: {}", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_by_source() {
        let left = [
            ("merchants".to_owned(), Some(0)),
            ("payments".to_owned(), Some(1)),
            ("refunds".to_owned(), None),
        ];
        assert_eq!(
            in_words(&left.into()),
            "left: 1 record of `payments`, `refunds` has not been reached yet"
        );
    }
}
