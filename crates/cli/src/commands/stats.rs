//! `banger stats`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use banger_api::client::Request;
use banger_api::stats::VmStats;
use clap::Args;

use super::values;
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::failure::Failure;
use crate::output::{Format, Text, redraw, write_json_line, write_text};
use crate::size::Size;

/// How long apart two measurements are.
const APART: Duration = Duration::from_secs(1);

/// Arguments of `stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
CPU is what the VM takes of the host, in percent of one processor. HOST-MEM is the host's memory that it holds; GUEST-MEM \
is what the guest's programs use of theirs. READ and WRITTEN count from the VM's start on. Without a terminal and with \
--output json, each second has one line.")]
pub struct Stats {
    /// Measure once: two measurements a second apart, one table
    #[arg(long)]
    no_stream: bool,
    /// The VMs; all that run if none is named
    #[arg(value_name = "NAME", value_parser = values::known_name)]
    names: Vec<String>,
}

impl Stats {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut interrupts = Interrupts::catch()?;
        let mut view = View { app, before: HashMap::new(), drawn: 0 };
        let mut next = Instant::now();
        loop {
            let measured = async {
                tokio::time::sleep_until(next.into()).await;
                self.measure(app).await
            };
            let stats = tokio::select! {
                stats = measured => stats?,
                signal = interrupts.next() => return Ok(128 + signal),
            };
            next = Instant::now() + APART;
            let first = view.before.is_empty() && !stats.is_empty();
            match (self.no_stream, app.screen.format) {
                (true, Format::Json) => return app.screen.print(&stats, Text::default).map(|()| 0),
                (true, _) if first => view.remember(&stats),
                (true, _) => return write_text(&view.table(&stats)).map(|()| 0),
                (false, Format::Json) => write_json_line(&stats)?,
                (false, _) => view.draw(&stats)?,
            }
        }
    }

    /// Those that run, or those that are named: one of these that does not run is an error.
    async fn measure(&self, app: &App) -> Result<Vec<VmStats>, Failure> {
        if self.names.is_empty() {
            return app.call(Request::get(["stats"])).await;
        }
        let mut stats: Vec<VmStats> = Vec::new();
        for name in &self.names {
            let measured: VmStats = app.call(Request::get(["vms", name, "stats"])).await?;
            if stats.iter().all(|other| other.id != measured.id) {
                stats.push(measured);
            }
        }
        Ok(stats)
    }
}

/// The table, drawn over the one before.
struct View<'a> {
    app: &'a App,
    before: HashMap<String, VmStats>,
    drawn: usize,
}

impl View<'_> {
    fn remember(&mut self, stats: &[VmStats]) {
        self.before = stats.iter().map(|stats| (stats.id.clone(), stats.clone())).collect();
    }

    fn table(&self, stats: &[VmStats]) -> Text {
        let head = ["NAME", "CPU", "HOST-MEM", "GUEST-MEM", "LOAD", "DISK", "READ", "WRITTEN"];
        let row = |now: &VmStats| row(now, self.before.get(&now.id));
        self.app.screen.table(&head, &stats.iter().map(row).collect::<Vec<_>>())
    }

    fn draw(&mut self, stats: &[VmStats]) -> Result<(), Failure> {
        let table = self.table(stats);
        self.remember(stats);
        if !(self.app.screen.live && self.app.screen.stdout_is_terminal) {
            return write_text(&table);
        }
        let before = std::mem::replace(&mut self.drawn, table.as_str().lines().count());
        redraw(&table, before)
    }
}

fn row(now: &VmStats, before: Option<&VmStats>) -> Vec<String> {
    let size = |bytes| Size(bytes).to_string();
    let none = || "-".to_owned();
    let cpu = before.and_then(|before| percent(before, now));
    let (memory, load) = match &now.guest {
        Some(guest) => {
            let used = guest.memory.saturating_sub(guest.memory_available);
            let [average, ..] = guest.averages;
            (format!("{} / {}", size(used), size(guest.memory)), format!("{}.{:02}", average / 100, average % 100))
        }
        None => (none(), none()),
    };
    vec![
        now.name.clone(),
        cpu.unwrap_or_else(none),
        size(now.resident),
        memory,
        load,
        size(now.disk),
        size(now.read),
        size(now.written),
    ]
}

/// Of one processor, between two measurements; nothing where they are of two runs, or at one time.
fn percent(before: &VmStats, now: &VmStats) -> Option<String> {
    let wall = now.at.checked_sub(before.at).filter(|wall| *wall > 0)?;
    let used = now.cpu_micros.checked_sub(before.cpu_micros)?;
    let tenths = used.saturating_mul(1000) / wall;
    Some(format!("{}.{} %", tenths / 10, tenths % 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::stats::Load;

    fn stats(at: u64, cpu_micros: u64) -> VmStats {
        let guest = Load { averages: [107, 0, 0], memory: 1 << 30, memory_available: 1 << 29, ..Load::default() };
        VmStats {
            id: "a".into(),
            name: "devbox".into(),
            cpus: 2,
            at,
            cpu_micros,
            resident: 300 << 20,
            read: 0,
            written: 4096,
            disk: 1 << 30,
            guest: Some(guest),
            guest_error: None,
        }
    }

    #[test]
    fn rates_are_differences() {
        let row = row(&stats(2_000_000, 1_500_000), Some(&stats(1_000_000, 250_000)));
        assert_eq!(row[..5], ["devbox", "125.0 %", "300 MiB", "512 MiB / 1 GiB", "1.07"]);
        assert_eq!(percent(&stats(1, 5), &stats(2, 4)), None, "it was started anew");
        assert_eq!(percent(&stats(1, 5), &stats(1, 6)), None);
    }

    #[test]
    fn a_guest_that_says_nothing_has_blanks() {
        let row = row(&VmStats { guest: None, ..stats(1, 1) }, None);
        assert_eq!((row[1].as_str(), row[3].as_str(), row[4].as_str()), ("-", "-", "-"));
    }
}
