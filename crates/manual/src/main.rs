//! `banger-manual DIR`: writes the manual's pages into an existing directory. `make man` calls it; it is not installed.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("error: no directory is named\nhelp: usage: banger-manual DIR");
        return ExitCode::from(2);
    };
    for page in banger_manual::pages() {
        let path = directory.join(&page.file);
        if let Err(error) = std::fs::write(&path, page.text) {
            eprintln!("error: cannot write {}: {error}\nhelp: name a directory that exists", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
