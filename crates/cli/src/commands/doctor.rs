//! `banger doctor`.

use banger_api::client::Request;
use banger_api::daemon::{Finding, Verdict};
use clap::Args;

use crate::app::App;
use crate::failure::Failure;
use crate::output::Format;

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
            Format::Name => findings.iter().map(|finding| format!("{}\n", finding.check)).collect(),
            Format::Table | Format::Json => report(&findings, app.screen.quiet),
        })?;
        Ok(u8::from(findings.iter().any(|finding| finding.verdict == Verdict::Fail)))
    }
}

/// A line for each check, and one below with what to do. Quietly: only of what is not as it should be.
pub(super) fn report(findings: &[Finding], quiet: bool) -> String {
    let wide = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Pass if quiet => continue,
            Verdict::Pass => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        text += &format!("{verdict:<4}  {:<wide$}  {}\n", finding.check, finding.found);
        if let Some(fix) = &finding.fix {
            text += &format!("      {:<wide$}  help: {fix}\n", "");
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
        assert_eq!(report(&findings, false), all);
        assert_eq!(report(&findings, true), "warn  reflink  none\n               help: use XFS\n");
    }
}
