//! `banger-manual man|book DIR`: writes the manual's pages, or the book's generated ones, into a directory. `make man` and
//! scripts/book call it; it is not installed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use banger_manual::Page;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let what = words.next();
    let pages: fn() -> Vec<Page> = match what.as_ref().and_then(|what| what.to_str()) {
        Some("man") => banger_manual::pages,
        Some("book") => banger_manual::book::pages,
        _ => return usage(),
    };
    let Some(directory) = words.next().map(PathBuf::from) else { return usage() };
    for page in pages() {
        let path = directory.join(&page.file);
        let place = path.parent().unwrap_or(Path::new("."));
        if let Err(error) = std::fs::create_dir_all(place).and_then(|()| std::fs::write(&path, page.text)) {
            eprintln!("error: cannot write {}: {error}\nhelp: name a directory that can be written to", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("error: what to write, or where to, is not named\nhelp: usage: banger-manual man|book DIR");
    ExitCode::from(2)
}
