//! `banger verify`.

use banger_api::client::Request;
use banger_api::verify::Oddity;
use clap::Args;

use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, Text};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {}

impl Verify {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let oddities: Vec<Oddity> = app.call(Request::get(["verify"])).await?;
        app.screen.print(&oddities, || match app.screen.format {
            Format::Name => Text::lines(oddities.iter().map(|oddity| &oddity.which)),
            Format::Table | Format::Json => report(&oddities),
        })?;
        if oddities.is_empty() {
            app.screen.say("all that is there is as it is recorded");
        }
        Ok(u8::from(!oddities.is_empty()))
    }
}

/// A line for each, and one below with what to do.
fn report(oddities: &[Oddity]) -> Text {
    let mut text = Text::default();
    for Oddity { kind, problem, which, found, fix } in oddities {
        text.push(&format!("{:<7}  {:<7}  {which}: {found}", problem.as_str(), kind.as_str()));
        if let Some(fix) = fix {
            text.push(&format!("{:18}help: {fix}", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::verify::{Kind, Problem};

    #[test]
    fn each_has_a_line_and_one_with_what_to_do() {
        let oddity = |fix: Option<&str>| Oddity {
            kind: Kind::Link,
            problem: Problem::Foreign,
            which: "tap-pool-x".into(),
            found: "not banger's".into(),
            fix: fix.map(str::to_owned),
        };
        let line = "foreign  link     tap-pool-x: not banger's\n";
        assert_eq!(report(&[oddity(None)]).as_str(), line);
        assert_eq!(report(&[oddity(Some("remove it"))]).as_str(), format!("{line}                  help: remove it\n"));
    }
}
