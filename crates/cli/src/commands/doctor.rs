//! `banger doctor`.

use banger_api::client::Request;
use banger_api::daemon::{Finding, Verdict};
use clap::Args;

use crate::app::App;
use crate::failure::Failure;
use crate::output::escape::escaped;
use crate::output::{Format, Text};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Mend what is safe to mend, the network and names, and say what is left
    #[arg(long)]
    fix: bool,
}

impl Doctor {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = if self.fix { Request::post(["doctor", "fix"]) } else { Request::get(["doctor"]) };
        let findings: Vec<Finding> = app.call(request).await?;
        app.screen.print(&findings, || match app.screen.format {
            Format::Name => Text::lines(findings.iter().map(|finding| &finding.check)),
            Format::Table | Format::Json => report(&findings, app.screen.quiet),
        })?;
        Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Fail)))
    }
}

/// A line for each check, and one below with what to do. Quietly: only of what is not as it should be.
pub(super) fn report(findings: &[Finding], quiet: bool) -> Text {
    let wide = findings.iter().map(|finding| escaped(&finding.check).chars().count()).max().unwrap_or(0);
    let mut text = Text::default();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Pass if quiet => continue,
            Verdict::Pass => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        text.push(&format!("{verdict:<4}  {:<wide$}  {}", escaped(&finding.check), finding.found));
        if let Some(fix) = &finding.fix {
            text.push(&format!("      {:<wide$}  help: {fix}", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_that_needs_something_says_what() {
        let findings = [
            Finding { check: "kvm".into(), verdict: Verdict::Pass, found: "fast".into(), fix: None },
            Finding {
                check: "reflink".into(),
                verdict: Verdict::Warn,
                found: "none".into(),
                fix: Some("use XFS".into()),
            },
        ];
        let all = "ok    kvm      fast\nwarn  reflink  none\n               help: use XFS\n";
        assert_eq!(report(&findings, false).as_str(), all);
        assert_eq!(report(&findings, true).as_str(), "warn  reflink  none\n               help: use XFS\n");
    }
}
