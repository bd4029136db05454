//! The manual's pages, made from what the programs themselves know: their arguments with the help texts, and the table of
//! the configuration's keys. What is written here is only what stands in neither. `book` makes the same into Markdown.

use bangerd::arguments::Arguments;
use bangerd::config::{KEYS, sample};
use bangerd::paths::Paths;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

mod api;
pub mod book;

/// When work on this version began: pages are the same whenever they are made.
const DATE: &str = "2026-11-01";

/// What a command's exit code means.
const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "It worked."),
    ("1", "It failed; the error says what to do."),
    ("2", "What was typed makes no sense."),
    ("3", "No daemon runs (banger daemon status)."),
    ("125, 126, 127", "banger failed, the command cannot be executed, it does not exist (run, exec, shell)."),
    ("128 and more", "A signal of that number less 128 ended it."),
];

/// Variables that the command line reads.
const OF_CLIENTS: &[(&str, &str)] = &[
    ("BANGER_HOST", "The daemon's socket, as --host names it."),
    ("NO_COLOR", "If it is set and not empty, nothing is coloured."),
];

/// Variables that only the daemon reads.
const OF_THE_DAEMON: &[(&str, &str)] = &[("BANGER_LOG", "What is logged: warn, info without it, debug, trace.")];

/// One page.
#[derive(Debug)]
pub struct Page {
    /// Its file's name: `banger-run.1`, `reference/banger-run.md`.
    pub file: String,
    /// Its text, for man(1) or in Markdown.
    pub text: Vec<u8>,
}

/// All pages: `banger` and each of its verbs, the daemon, the configuration.
pub fn pages() -> Vec<Page> {
    let mut banger = banger_cli::command().disable_help_subcommand(true);
    banger.build();
    let mut pages = vec![page(&banger, "1", &surroundings())];
    for verb in banger.get_subcommands() {
        verbs(verb, &mut pages);
    }
    let daemon = Arguments::command();
    let mut further = Roff::new();
    variables(&mut further, OF_THE_DAEMON);
    further.extend([see_also(&["banger(1)", "banger-config(5)"])]);
    pages.push(page(&daemon, "8", &further));
    pages.push(configuration());
    pages
}

/// The page of a verb, or of a noun and its verbs.
fn verbs(command: &Command, pages: &mut Vec<Page>) {
    if command.get_name() == "vm" {
        // Its verbs are those without it, and have their pages.
        let noun = Command::new("vm").display_name("banger-vm").bin_name("banger vm <VERB>");
        let about = command.get_about().cloned().unwrap_or_default();
        let noun = noun.about(about).disable_help_flag(true);
        pages.push(page(&noun, "1", &see_also(&["banger(1)"])));
        return;
    }
    pages.push(page(command, "1", &see_also(&["banger(1)"])));
    for verb in command.get_subcommands() {
        verbs(verb, pages);
    }
}

fn page(command: &Command, section: &str, further: &Roff) -> Page {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command.clone()).title(&name).section(section).date(DATE).source(source()).manual("banger");
    let mut text = Vec::new();
    man.render(&mut text).expect("writing into memory cannot fail");
    further.to_writer(&mut text).expect("writing into memory cannot fail");
    Page { file: format!("{name}.{section}"), text: without_empty_breaks(&text) }
}

/// The library breaks a line before and after a blank one, where there is none left to break.
fn without_empty_breaks(text: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let is_blank = |at: Option<usize>| at.and_then(|at| lines.get(at)).is_some_and(|line| line.is_empty());
    let kept = |at: &usize| lines[*at] != b".br" || !(is_blank(at.checked_sub(1)) || is_blank(at.checked_add(1)));
    (0..lines.len()).filter(kept).map(|at| lines[at]).collect::<Vec<_>>().join(&b'\n')
}

fn source() -> String {
    format!("banger {}", env!("CARGO_PKG_VERSION"))
}

/// What holds for every verb: variables, files, exit codes.
fn surroundings() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        item(&mut roff, code, meaning);
    }
    variables(&mut roff, OF_CLIENTS);
    let also = see_also(&["banger-run(1)", "banger-create(1)", "banger-exec(1)", "banger-config(5)", "bangerd(8)"]);
    roff.extend([also]);
    roff
}

/// These, and those that say where a daemon's places are.
fn variables(roff: &mut Roff, further: &[(&str, &str)]) {
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in places() {
        item(roff, name, &meaning);
    }
    for (name, meaning) in further {
        item(roff, name, meaning);
    }
}

/// The variables that say where a daemon's places are.
fn places() -> [(&'static str, String); 3] {
    let usual = Paths::default();
    [
        ("BANGER_STATE_DIR", "Records, images, disks and the daemon's log", usual.state),
        ("BANGER_RUNTIME_DIR", "Sockets", usual.runtime),
        ("BANGER_CONFIG", "The configuration", usual.config),
    ]
    .map(|(name, what, usual)| (name, format!("{what}; {} without it.", usual.display())))
}

fn configuration() -> Page {
    let file = Paths::default().config.display().to_string();
    let mut roff = Roff::new();
    roff.control("TH", ["banger-config", "5", DATE, &source(), "banger"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("banger-config - the configuration of banger's daemon")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic(&file)]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "The file is TOML, and need not exist. It is read when the daemon starts. Every key is optional; ",
    )]);
    roff.text([roman("one that does not exist is refused, with the nearest that does.")]);
    let mut table = "";
    for key in KEYS {
        if key.table != table {
            table = key.table;
            roff.control("SS", [&*format!("[{table}]")]);
        }
        roff.control("TP", []);
        roff.text([bold(key.key), roman(format!(" = {}", key.default()))]);
        let most = if key.most > 0 { format!("; {} at most", key.most) } else { String::new() };
        roff.text([roman(format!("{}{most}.", key.text))]);
    }
    roff.control("SH", ["EXAMPLE"]);
    roff.text([roman("What holds without the file:")]);
    roff.control("PP", []);
    roff.control("nf", []);
    for line in sample().lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.extend([see_also(&["banger(1)", "bangerd(8)"])]);
    Page { file: "banger-config.5".to_owned(), text: roff.to_roff().into_bytes() }
}

fn see_also(pages: &[&str]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.join(", "))]);
    roff
}

fn item(roff: &mut Roff, name: &str, meaning: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(meaning)]);
}
