//! The user's terminal: its size, and its raw mode, which never outlives what needs it.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns of the terminal on standard output, or else on standard input.
pub fn size() -> Option<(u16, u16)> {
    let sizes = [tcgetwinsize(rustix::stdio::stdout()), tcgetwinsize(rustix::stdio::stdin())];
    let known = sizes.into_iter().flatten().find(|size| size.ws_row > 0 && size.ws_col > 0);
    known.map(|size| (size.ws_row, size.ws_col))
}

/// Raw mode of the terminal on standard input: every key goes to the guest. Dropping it restores what was before, also
/// when a panic unwinds.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Enters raw mode; none where standard input is no terminal.
    pub fn enter() -> Option<Raw> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let raw = Raw { before };
        raw.renew();
        Some(raw)
    }

    /// Enters it again, after somebody else has set other modes.
    pub fn renew(&self) {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw).unwrap_or_default();
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring.
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before).unwrap_or_default();
    }
}
