//! How fast this processor's time-stamp counter runs. An emulated guest reads the host's counter and needs to be told: it
//! cannot measure it where the emulation's own timers are late.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long is measured. The clock is read to within 100 ns or so, which makes 10 parts in a million of this.
const MEASURED: Duration = Duration::from_millis(10);

/// The counter's frequency in kHz; none where the processor has no such counter. Blocks for 10 ms the first time and is
/// remembered then: the counters of all processors that run virtual machines keep their frequency.
pub fn frequency_khz() -> Option<u32> {
    static FREQUENCY: OnceLock<Option<u32>> = OnceLock::new();
    *FREQUENCY.get_or_init(measure)
}

fn measure() -> Option<u32> {
    let (first_count, first) = read()?;
    std::thread::sleep(MEASURED);
    let (last_count, last) = read()?;
    let nanos = last.duration_since(first).as_nanos();
    let ticks = u128::from(last_count.wrapping_sub(first_count));
    u32::try_from(ticks * 1_000_000 / nanos.max(1)).ok().filter(|&khz| khz > 0)
}

/// The counter and the clock at one instant: of several attempts that with the least time between its two looks at the
/// counter, as anything may run in between.
#[cfg(target_arch = "x86_64")]
fn read() -> Option<(u64, Instant)> {
    // SAFETY: every x86-64 processor has the instruction, and Linux forbids it only to processes that asked for that.
    let count = || unsafe { core::arch::x86_64::_rdtsc() };
    let attempt = || {
        let before = count();
        let now = Instant::now();
        (count().wrapping_sub(before), before, now)
    };
    let best = (0..16).map(|_| attempt()).min_by_key(|(between, ..)| *between);
    best.map(|(between, before, now)| (before.wrapping_add(between / 2), now))
}

#[cfg(not(target_arch = "x86_64"))]
fn read() -> Option<(u64, Instant)> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (f64::from(measure().unwrap()), f64::from(measure().unwrap()));
        assert!((one - other).abs() / one < 0.001, "{one} and {other}");
        assert_eq!(frequency_khz(), frequency_khz());
    }
}
