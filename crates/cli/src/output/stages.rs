//! The stages of an operation, as they come: live on a terminal, plain lines elsewhere, nothing with `--quiet`.

use std::time::{Duration, Instant};

use super::escape::{Text, escaped, printable};
use super::suspension::Suspension;
use super::{Screen, complain, draw, human, width};

/// A stage that takes less than this is not drawn before it has ended: a line that flashes by tells nothing.
pub const PATIENCE: Duration = Duration::from_millis(80);

/// How often the running time of a stage is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// Draws stages and remembers their times.
#[derive(Debug)]
pub struct Stages {
    style: Style,
    /// Whether the times come in a table at the end.
    in_table: bool,
    colour: bool,
    unicode: bool,
    current: Option<Current>,
    drawn: bool,
    suspension: Suspension,
    unseen: Unseen,
}

/// The times of stages, for a table at the end.
#[derive(Debug, Default)]
pub struct Unseen {
    finished: Vec<(String, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Live,
    Plain,
    Silent,
}

#[derive(Debug)]
struct Current {
    name: String,
    began: Instant,
    message: String,
    next_draw: Instant,
}

impl Stages {
    /// Stages on this screen.
    pub fn new(screen: &Screen) -> Stages {
        let style = match (screen.quiet, screen.live) {
            (true, _) => Style::Silent,
            (false, true) => Style::Live,
            (false, false) => Style::Plain,
        };
        Stages {
            style,
            in_table: screen.timings,
            colour: screen.colour,
            unicode: screen.unicode,
            current: None,
            drawn: false,
            suspension: Suspension::new(style == Style::Live),
            unseen: Unseen::default(),
        }
    }

    /// A stage began.
    pub fn started(&mut self, name: &str) {
        self.started_at(name, Instant::now());
    }

    /// A stage goes on that began a while ago.
    pub fn started_at(&mut self, name: &str, began: Instant) {
        let next_draw = Instant::now().max(began + PATIENCE);
        self.current = Some(Current { name: escaped(name).into_owned(), began, message: String::new(), next_draw });
    }

    /// The stage ended.
    pub fn finished(&mut self, name: &str, took: Duration) {
        self.current = None;
        let (name, time) = (escaped(name), human::duration(took));
        match self.style {
            Style::Live => {
                let tick = self.paint("32", if self.unicode { "✓" } else { "*" });
                match self.in_table {
                    true => self.replace("", false),
                    false => self.replace(&format!("{tick} {name} {}", self.paint("2", &time)), true),
                }
            }
            Style::Plain => complain(&format!("{name}: {time}")),
            Style::Silent => {}
        }
        self.unseen.finished(&name, took);
    }

    /// Something worth a line.
    pub fn progress(&mut self, message: &str) {
        match self.style {
            Style::Live => {
                if let Some(current) = &mut self.current {
                    current.message = printable(message);
                }
            }
            Style::Plain => complain(&format!("  {}", printable(message))),
            Style::Silent => {}
        }
    }

    /// Draws the running stage when it is time to, and takes it off the screen while the user stops this process. Returns
    /// after each; never where nothing is drawn.
    pub async fn live(&mut self) {
        let next = self.current.as_ref().filter(|_| self.style == Style::Live).map(|current| current.next_draw);
        let due = async {
            match next {
                Some(instant) => tokio::time::sleep_until(instant.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => self.draw(),
            () = self.suspension.asked() => {
                self.hide();
                self.suspension.stop();
            }
        }
    }

    /// Draws the running stage.
    fn draw(&mut self) {
        let Some(current) = &mut self.current else { return };
        current.next_draw = Instant::now() + TICK;
        let running = current.began.elapsed();
        let mark = if self.unicode { "…" } else { "..." };
        let mut line = format!("{mark} {}", current.name);
        if running >= Duration::from_secs(1) {
            line += &format!(" {} s", running.as_secs());
        }
        if !current.message.is_empty() {
            line += &format!("  {}", current.message);
        }
        let columns = width().saturating_sub(1);
        let line: String = line.chars().take(columns).collect();
        self.replace(&line, false);
    }

    /// Takes a stage that did not end off the screen.
    pub fn clear(&mut self) {
        self.current = None;
        self.hide();
    }

    fn hide(&mut self) {
        if self.drawn {
            self.replace("", false);
            self.drawn = false;
        }
    }

    /// The name of the stage under way.
    pub fn current(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.name.as_str())
    }

    /// The times so far.
    pub fn unseen(&self) -> &Unseen {
        &self.unseen
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One line in place of the one that is drawn. What comes from elsewhere is escaped in it already.
    fn replace(&mut self, line: &str, keep: bool) {
        let back = if self.drawn { "\r\x1b[K" } else { "" };
        let end = if keep { "\n" } else { "" };
        self.drawn = !keep;
        draw(&format!("{back}{line}{end}"));
    }
}

impl Unseen {
    /// A stage ended.
    pub fn finished(&mut self, name: &str, took: Duration) {
        self.finished.push((escaped(name).into_owned(), took));
    }

    /// The stage table: times, shares of the total, and what no stage accounts for.
    pub fn table(&self, total: Duration) -> Text {
        let named: Duration = self.finished.iter().map(|(_, took)| *took).sum();
        let other = total.saturating_sub(named);
        let mut rows: Vec<(&str, Duration)> = self.finished.iter().map(|(name, took)| (name.as_str(), *took)).collect();
        rows.push(("(between)", other));
        rows.push(("total", total));
        let wide = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let share = |took: Duration| took.as_secs_f64() * 100.0 / total.as_secs_f64().max(f64::MIN_POSITIVE);
        let mut table = Text::line(&format!("{:<wide$}  {:>11}  {:>7}", "STAGE", "TIME", "SHARE"));
        for (name, took) in rows {
            table.push(&format!("{name:<wide$}  {:>11}  {:>5.1} %", human::duration(took), share(took)));
        }
        table
    }

    /// The same for programs, times in microseconds.
    pub fn json(&self, total: Duration) -> serde_json::Value {
        let micros = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let stages =
            self.finished.iter().map(|(stage, took)| serde_json::json!({"stage": stage, "micros": micros(*took)}));
        serde_json::json!({"stages": stages.collect::<Vec<_>>(), "micros": micros(total)})
    }
}

/// However a command ends, what it has drawn does not stay.
impl Drop for Stages {
    fn drop(&mut self) {
        self.hide();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_sums_up_to_the_total() {
        let screen = Screen {
            format: super::super::Format::Table,
            quiet: true,
            timings: true,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
            live: false,
            colour: false,
            unicode: false,
        };
        let mut stages = Stages::new(&screen);
        stages.started("disk.clone");
        stages.finished("disk.clone", Duration::from_micros(2_500));
        stages.started("agent.ready");
        stages.finished("agent.ready", Duration::from_micros(197_000));
        let expected = "\
STAGE               TIME    SHARE
disk.clone        2.5 ms    1.2 %
agent.ready       197 ms   98.5 %
(between)         0.5 ms    0.2 %
total             200 ms  100.0 %
";
        assert_eq!(stages.unseen().table(Duration::from_micros(200_000)).as_str(), expected);
        let json = stages.unseen().json(Duration::from_micros(200_000));
        assert_eq!((&json["micros"], &json["stages"][0]["stage"]), (&200_000.into(), &"disk.clone".into()));
        assert_eq!(json["stages"][1]["micros"], 197_000);
    }
}
