//! Limits what VMs can make the daemon log. A guest can make the same thing happen again and again: its lines of one kind are
//! written a few times, then once a minute, and the others are counted.
//!
//! A kind is a place in the code together with a VM. So one VM's flood hides neither another VM's lines nor what else happens
//! to it. Lines without a field `vm` and errors are the daemon's own: nothing limits them. Nor does it limit the stages of
//! operations, which users ask for; a VM that goes down again and again starts again with growing pauses.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How often a line of one kind may come for long.
const EACH: Duration = Duration::from_secs(60);

/// How many lines of one kind may come at once.
const BURST: u32 = 5;

/// What each byte of a long line costs: guests can make an error long.
const EACH_BYTE: Duration = Duration::from_millis(100);

/// How many kinds are remembered. Those that could be forgotten soonest are forgotten first.
const MAX_KINDS: usize = 4096;

/// How much of a message names its kind, in characters.
const MAX_NAME: usize = 120;

/// The limits, as a layer in front of those that write. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Limits(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    /// A line was left out after none was.
    begun: Notify,
}

#[derive(Debug, Default)]
struct Table {
    kinds: HashMap<(Identifier, String), Kind>,
    /// How many lines were left out whose kinds are forgotten.
    of_forgotten: u64,
}

#[derive(Debug)]
struct Kind {
    message: String,
    /// When all lines that were written are paid for.
    paid: Instant,
    left_out: u64,
}

/// What the limits need to know of a line.
#[derive(Debug, Default)]
struct Line {
    vm: Option<String>,
    message: String,
    bytes: Length,
}

#[derive(Debug, Default)]
struct Length(u32);

impl Limits {
    /// Logs how many lines were left out, a minute after the first of them. Does not end.
    pub async fn tell_counts(self) {
        loop {
            self.0.begun.notified().await;
            tokio::time::sleep(EACH).await;
            self.tell();
        }
    }

    /// Logs how many lines were left out since this was told last.
    pub fn tell(&self) {
        let (kinds, of_forgotten) = self.table().counts();
        for (vm, line, count) in kinds {
            tracing::warn!(vm, line, count, "similar lines about a VM were left out");
        }
        if of_forgotten > 0 {
            tracing::warn!(count = of_forgotten, "lines about VMs were left out");
        }
    }

    fn allow(&self, now: Instant, place: Identifier, line: Line) -> bool {
        let Line { vm: Some(vm), message, bytes } = line else { return true };
        let (is_allowed, is_first) = self.table().allow(now, (place, vm), message, bytes.0);
        if is_first {
            self.0.begun.notify_one();
        }
        is_allowed
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Limits {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let is_own = metadata.fields().field("vm").is_none();
        // The second are the counts.
        if is_own || metadata.target() == module_path!() || *metadata.level() == Level::ERROR {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        self.allow(Instant::now(), metadata.callsite(), line)
    }
}

impl Table {
    /// Whether a line may be written, and whether it is the first of its kind that was left out.
    fn allow(&mut self, now: Instant, kind: (Identifier, String), message: String, bytes: u32) -> (bool, bool) {
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) {
            self.make_room(now);
        }
        let kind = self.kinds.entry(kind).or_insert(Kind { message, paid: now, left_out: 0 });
        if kind.paid > now + EACH * (BURST - 1) {
            kind.left_out += 1;
            return (false, kind.left_out == 1);
        }
        kind.paid = kind.paid.max(now) + EACH.max(EACH_BYTE * bytes);
        (true, false)
    }

    fn make_room(&mut self, now: Instant) {
        self.kinds.retain(|_, kind| kind.paid > now || kind.left_out > 0);
        if self.kinds.len() < MAX_KINDS {
            return;
        }
        let next = self.kinds.iter().min_by_key(|(_, kind)| (kind.left_out > 0, kind.paid));
        if let Some(forgotten) = next.map(|(kind, _)| kind.clone()).and_then(|kind| self.kinds.remove(&kind)) {
            self.of_forgotten += forgotten.left_out;
        }
    }

    /// The lines left out since the last call, by VM and message, and those of forgotten kinds.
    fn counts(&mut self) -> (Vec<(String, String, u64)>, u64) {
        let kinds = self.kinds.iter_mut().filter(|(_, kind)| kind.left_out > 0);
        let counts =
            kinds.map(|((_, vm), kind)| (vm.clone(), kind.message.clone(), std::mem::take(&mut kind.left_out)));
        (counts.collect(), std::mem::take(&mut self.of_forgotten))
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.bytes.add(value.len());
        if field.name() == "vm" {
            self.vm = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let said = format!("{value:?}");
        self.bytes.add(said.len());
        match field.name() {
            "vm" => self.vm = Some(said),
            "message" => {
                self.message = said.chars().take(MAX_NAME).collect();
            }
            _ => {}
        }
    }
}

impl Length {
    fn add(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tracing_subscriber::layer::SubscriberExt;

    /// A place to look at what was written.
    #[derive(Debug, Clone, Default)]
    struct Shelf(Arc<Mutex<Vec<u8>>>);

    impl Shelf {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Shelf {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that come through while `work` logs.
    fn logged(work: impl FnOnce(&Limits)) -> Vec<String> {
        let (limits, shelf) = (Limits::default(), Shelf::default());
        let to_shelf = shelf.clone();
        let format =
            tracing_subscriber::fmt::layer().without_time().with_target(false).with_writer(move || to_shelf.clone());
        let subscriber = tracing_subscriber::registry().with(limits.clone()).with(format);
        tracing::subscriber::with_default(subscriber, || work(&limits));
        shelf.text().lines().map(|line| line.trim().to_owned()).collect()
    }

    fn greet(vm: &str) {
        tracing::info!(vm, "no greeting");
    }

    #[test]
    fn a_flood_of_one_vm_is_cut_and_counted_and_hides_nothing_else() {
        let lines = logged(|limits| {
            for number in 0..1000 {
                greet("flooder");
                tracing::info!(number, "the daemon's own");
                if number % 200 == 0 {
                    greet("other");
                    tracing::warn!(vm = "flooder", "another kind");
                }
                if number % 100 == 0 {
                    tracing::error!(vm = "flooder", "an error");
                }
            }
            limits.tell();
            limits.tell();
        });
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count(r#"no greeting vm="flooder""#), 5);
        assert_eq!(count(r#"no greeting vm="other""#), 5);
        assert_eq!(count("another kind"), 5);
        assert_eq!(count("the daemon's own"), 1000);
        assert_eq!(count("an error"), 10);
        let told = r#"WARN similar lines about a VM were left out vm="flooder" line="no greeting" count=995"#;
        assert_eq!(lines.last().unwrap(), told);
        assert_eq!(lines.len(), 5 + 5 + 5 + 1000 + 10 + 1);
    }

    #[test]
    fn a_name_that_is_displayed_is_a_vm_too() {
        let lines = logged(|_| (0..100).for_each(|_| tracing::info!(vm = %"devbox", "again")));
        assert_eq!(lines.len(), 5);
    }

    /// How many of the lines, one each `pause`, are written.
    fn written(table: &mut Table, vm: &str, lines: u32, pause: Duration, bytes: u32) -> usize {
        let now = Instant::now();
        let kind = kind(vm);
        let allowed = |number| table.allow(now + pause * number, kind.clone(), "text".to_owned(), bytes).0;
        (0..lines).map(allowed).filter(|allowed| *allowed).count()
    }

    fn kind(vm: &str) -> (Identifier, String) {
        let place = tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            tracing::info_span!("kind").metadata().unwrap().callsite()
        });
        (place, vm.to_owned())
    }

    #[test]
    fn for_long_it_is_a_line_a_minute_and_ten_bytes_a_second() {
        let hour = |bytes| written(&mut Table::default(), "vm", 360_000, Duration::from_millis(10), bytes);
        assert_eq!(hour(200), 5 + 59);
        // 36 kB in the hour, and one line more.
        assert_eq!(hour(3000), 13);
        assert_eq!(hour(65_536), 1);
        let slow = written(&mut Table::default(), "vm", 60, Duration::from_secs(60), 200);
        assert_eq!(slow, 60);
    }

    #[test]
    fn it_remembers_a_bounded_number_of_kinds_and_counts_all_that_it_left_out() {
        let mut table = Table::default();
        let vms = 2 * MAX_KINDS as u64;
        let mut left_out = 0;
        for vm in 0..vms {
            left_out += 10 - written(&mut table, &vm.to_string(), 10, Duration::ZERO, 100) as u64;
            assert!(table.kinds.len() <= MAX_KINDS);
        }
        assert_eq!(left_out, 5 * vms);
        let (kinds, of_forgotten) = table.counts();
        assert_eq!(kinds.iter().map(|(_, _, count)| count).sum::<u64>() + of_forgotten, left_out);
        // None has anything to be told any more, and after a while nothing to remember.
        table.make_room(Instant::now() + EACH * 10);
        assert!(table.kinds.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_count_is_told_a_minute_after_the_first_that_was_left_out() {
        let (limits, shelf) = (Limits::default(), Shelf::default());
        let to_shelf = shelf.clone();
        let format = tracing_subscriber::fmt::layer().without_time().with_writer(move || to_shelf.clone());
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(limits.clone()).with(format));
        let telling = tokio::spawn(limits.tell_counts());
        let told = || shelf.text().lines().filter(|line| line.contains("left out")).count();
        for minutes in 1..3 {
            (0..10).for_each(|_| greet("devbox"));
            tokio::time::sleep(EACH - Duration::from_secs(1)).await;
            assert_eq!(told(), minutes - 1);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(told(), minutes);
        }
        telling.abort();
    }
}
