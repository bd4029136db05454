//! The generated half of the book: its reference, as Markdown, made from what the manual is made from and from
//! docs/openapi.json.
//!
//! The book's other pages are written by hand, in docs/book/src; scripts/book puts both together.

use bangerd::arguments::Arguments;
use bangerd::config::{KEYS, sample};
use bangerd::paths::Paths;
use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::api;
use crate::{EXIT_CODES, OF_CLIENTS, OF_THE_DAEMON, Page, places};

/// The directory of all these pages, below the book's.
const DIRECTORY: &str = "reference";

/// All pages; the last one is the lines for the end of the book's table of contents.
pub fn pages() -> Vec<Page> {
    let mut banger = banger_cli::command().disable_help_subcommand(true);
    banger.build();
    let mut pages = vec![overview(&banger)];
    for verb in banger.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        verbs(verb, &mut pages);
    }
    pages.push(daemon());
    pages.push(configuration());
    pages.push(page("operations", "The API's operations", &api::operations()));
    let contents = contents(&pages);
    pages.push(Page { file: "contents.md".to_owned(), text: contents.into_bytes() });
    pages
}

fn page(name: &str, title: &str, text: &str) -> Page {
    // Parts bring their own distance, before and behind them.
    let text = format!("# {title}\n\n{}\n", text.trim_end()).replace("\n\n\n", "\n\n");
    Page { file: format!("{DIRECTORY}/{name}.md"), text: text.into_bytes() }
}

/// A line for each page, those of verbs below `banger`; the API's hand-written pages beside its operations.
fn contents(pages: &[Page]) -> String {
    let mut text = String::new();
    for Page { file, text: page } in pages {
        let title = String::from_utf8_lossy(page);
        let title = title.lines().next().unwrap_or_default().trim_start_matches("# ");
        let indent = if title.starts_with("banger ") { "  " } else { "" };
        text += &format!("{indent}- [{title}]({file})\n");
    }
    text + "  - [The API, by example](reference/api.md)\n  - [The frames of its streams](reference/streams.md)\n"
}

/// What holds for every verb.
fn overview(banger: &Command) -> Page {
    let mut text = usage(banger);
    for verb in banger.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = verb.get_name();
        text += &format!("- [`{name}`](banger-{name}.md): {}\n", about(verb));
    }
    let globals: Vec<&Arg> = banger.get_arguments().filter(|arg| is_global(arg)).collect();
    list(&mut text, "Options of every verb", globals.iter().map(|arg| (spelling(arg), meaning(arg))));
    list(&mut text, "Exit codes", EXIT_CODES.iter().map(|(code, what)| (code.to_string(), escaped(what))));
    let clients = OF_CLIENTS.iter().map(|(name, what)| (format!("`{name}`"), escaped(what)));
    list(&mut text, "Variables", clients);
    page("banger", "banger", &text)
}

/// The page of a verb, or of a noun and then its verbs.
fn verbs(command: &Command, pages: &mut Vec<Page>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let title = name.replace('-', " ");
    if name == "banger-vm" {
        pages.push(page(&name, &title, &format!("{}. `banger vm run` is `banger run`, and so on.", about(command))));
        return;
    }
    let under: Vec<&Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    let mut text = format!("{}.\n\n{}", about(command), usage(command));
    for verb in &under {
        text += &format!("- [`{}`]({name}-{0}.md): {}\n", verb.get_name(), about(verb));
    }
    arguments(&mut text, command);
    text += "\nAnd the [options of every verb](banger.md#options-of-every-verb).\n";
    pages.push(page(&name, &title, &text));
    for verb in under {
        verbs(verb, pages);
    }
}

fn daemon() -> Page {
    let mut command = Arguments::command();
    command.build();
    let mut text = format!("{}.\n\n{}", about(&command), usage(&command));
    arguments(&mut text, &command);
    let places = places().map(|(name, what)| (format!("`{name}`"), escaped(&what)));
    let further = OF_THE_DAEMON.iter().map(|(name, what)| (format!("`{name}`"), escaped(what)));
    list(&mut text, "Variables", places.into_iter().chain(further));
    page("bangerd", "bangerd", &text)
}

fn configuration() -> Page {
    let mut text = format!(
        "`{}` is TOML, and need not exist. It is read when the daemon starts. Every key is optional; one that does not exist \
         is refused, with the nearest that does.\n\n| key | without it | at most | what |\n| --- | --- | --- | --- |\n",
        Paths::default().config.display()
    );
    for key in KEYS {
        let most = if key.most > 0 { key.most.to_string() } else { String::new() };
        text += &format!("| `{}.{}` | `{}` | {most} | {} |\n", key.table, key.key, key.default(), escaped(key.text));
    }
    text += &format!("\nWhat holds without the file:\n\n```toml\n{}```\n", sample());
    page("configuration", "The configuration", &text)
}

fn about(command: &Command) -> String {
    command.get_about().map(|about| escaped(&about.to_string())).unwrap_or_default()
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    let aliases = if aliases.is_empty() { String::new() } else { format!("Also `{}`.\n\n", aliases.join("`, `")) };
    format!("```text\n{}\n```\n\n{aliases}", usage.trim_start_matches("Usage: "))
}

/// Its own arguments and options, and what its help says after them.
fn arguments(text: &mut String, command: &Command) {
    let own = command.get_arguments().filter(|arg| !arg.is_hide_set() && !is_global(arg) && arg.get_id() != "help");
    let (positional, options): (Vec<&Arg>, Vec<&Arg>) = own.partition(|arg| arg.is_positional());
    for (heading, group) in [("Arguments", positional), ("Options", options)] {
        if !group.is_empty() {
            list(text, heading, group.into_iter().map(|arg| (spelling(arg), meaning(arg))));
        }
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        *text += &format!("\n{}\n", escaped(&after.to_string()));
    }
}

fn list(text: &mut String, heading: &str, items: impl Iterator<Item = (String, String)>) {
    *text += &format!("\n## {heading}\n\n");
    for (name, meaning) in items {
        *text += &format!("- {name}: {meaning}\n");
    }
}

fn is_global(arg: &Arg) -> bool {
    arg.get_help_heading() == Some("Options of every verb")
}

/// `-n, --name <NAME>`, as code.
fn spelling(arg: &Arg) -> String {
    if arg.is_positional() {
        return format!("`{arg}`");
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let value = match arg.get_value_names() {
        Some([name, ..]) if takes && optional => format!("[=<{name}>]"),
        Some([name, ..]) if takes => format!(" <{name}>"),
        _ => String::new(),
    };
    format!("`{}{value}`", names.join(", "))
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(|help| escaped(&help.to_string())).unwrap_or_default();
    let values: Vec<String> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    if takes && !values.is_empty() && !arg.is_hide_possible_values_set() {
        return format!("{help}; one of {}", values.join(", "));
    }
    help
}

/// A text in which nothing is Markdown but what stands between backticks.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut code = false;
    for char in text.chars() {
        code ^= char == '`';
        if !code && r"\<>*_[]|#".contains(char) {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_markdown_is_text_but_for_code() {
        assert_eq!(escaped("'*' of <NAME>, as `a*b`, [x]"), r"'\*' of \<NAME\>, as `a*b`, \[x\]");
    }
}
