//! The frequency of the processor's time stamp counter, measured against the kernel's clock.
//!
//! The kernel knows it but does not tell.

use std::time::Duration;

use rustix::time::ClockId;

/// From when on a measurement is good to a few parts in a million.
pub const LONG_ENOUGH: Duration = Duration::from_millis(20);

/// A measurement under way. The longer it lasts, the better it becomes.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    since: Sample,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    cycles: u64,
    nanos: u64,
}

impl Measurement {
    /// Begins a measurement.
    pub fn begin() -> Measurement {
        Measurement { since: Sample::take() }
    }

    /// How long to wait until it is good.
    pub fn missing(&self) -> Duration {
        LONG_ENOUGH.saturating_sub(Duration::from_nanos(Sample::take().nanos - self.since.nanos))
    }

    /// The counter's frequency in kHz, as far as it is known by now.
    pub fn khz(&self) -> u64 {
        let now = Sample::take();
        let (cycles, nanos) = (now.cycles.wrapping_sub(self.since.cycles), (now.nanos - self.since.nanos).max(1));
        u64::try_from(u128::from(cycles) * 1_000_000 / u128::from(nanos)).unwrap_or(u64::MAX)
    }
}

impl Sample {
    /// The tightest of a few: whoever is interrupted between the two clocks would be off by as much.
    fn take() -> Sample {
        let attempt = || {
            let before = clock();
            let cycles = counter();
            let after = clock();
            (after - before, Sample { cycles, nanos: before + (after - before) / 2 })
        };
        (0..8).map(|_| attempt()).min_by_key(|(width, _)| *width).map_or_else(|| attempt().1, |(_, sample)| sample)
    }
}

fn clock() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::MonotonicRaw);
    // The clock counts from the boot: it is never negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: the instruction reads a register and nothing else, and Linux lets every process execute it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_to_a_hundred_parts_in_a_million() {
        let measure = || {
            let measurement = Measurement::begin();
            std::thread::sleep(measurement.missing());
            assert_eq!(measurement.missing(), Duration::ZERO);
            measurement.khz()
        };
        let (one, two) = (measure(), measure());
        assert!((100_000..10_000_000).contains(&one), "{one} kHz");
        assert!(one.abs_diff(two) * 10_000 < one, "{one} kHz, {two} kHz");
    }
}
