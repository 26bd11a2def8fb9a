//! Simulated clocks and randomness, which replace the system's on the current thread.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

thread_local! {
    static SIMULATED: RefCell<Option<SimulatedClocks>> = const { RefCell::new(None) };
}

struct SimulatedClocks {
    wall_us: u64,
    mono: Duration,
    draws: u64,
}

/// The thread's clocks are simulated until this is dropped.
pub(crate) struct SimulatedClocksGuard(());

/// Starts at `wall_us`; randomness is derived from `seed`.
pub(crate) fn begin(wall_us: u64, seed: u64) -> SimulatedClocksGuard {
    let mono = Duration::ZERO;
    let clocks = SimulatedClocks {
        wall_us,
        mono,
        draws: seed,
    };
    SIMULATED.set(Some(clocks));
    SimulatedClocksGuard(())
}

impl Drop for SimulatedClocksGuard {
    fn drop(&mut self) {
        SIMULATED.set(None);
    }
}

/// Advances both clocks.
pub(crate) fn pass(time: Duration) {
    with(|clocks| {
        clocks.mono += time;
        clocks.wall_us += time.as_micros() as u64;
    });
}

/// Sets the wall clock.
pub(crate) fn set_wall(by_us: i64) {
    with(|clocks| clocks.wall_us = clocks.wall_us.saturating_add_signed(by_us));
}

pub(super) fn now_micros() -> Option<u64> {
    with(|clocks| clocks.wall_us)
}

/// Every reading advances the clock a little, so that loops with a deadline terminate.
pub(super) fn instant() -> Option<Instant> {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    with(|clocks| {
        clocks.mono += Duration::from_micros(draw(&mut clocks.draws) % 128);
        start + clocks.mono
    })
}

pub(super) fn nonce() -> Option<u64> {
    with(|clocks| draw(&mut clocks.draws))
}

fn with<R>(act: impl FnOnce(&mut SimulatedClocks) -> R) -> Option<R> {
    SIMULATED.with(|simulated| simulated.borrow_mut().as_mut().map(act))
}

/// SplitMix64: small, and every seed is equally good.
pub(crate) fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
