//! Things that go, one after the other, in the order in which they were named.

use banger_api::client::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::failure::Failure;
use crate::output::{Format, Text};

/// Makes a request for each name, and tells what became of it. One that fails does not keep the others from going: the exit code is
/// 1 then, and for a single one it is its failure.
pub(super) async fn each<T: DeserializeOwned + Serialize>(
    app: &App,
    names: &[String],
    request: impl Fn(&str) -> Request,
    told: impl Fn(&T) -> String,
    name: impl Fn(&T) -> &str,
) -> Result<u8, Failure> {
    let mut done: Vec<T> = Vec::new();
    let mut code = 0;
    for one in names {
        match app.call::<T>(request(one)).await {
            Ok(gone) => {
                app.screen.say(&told(&gone));
                done.push(gone);
            }
            Err(failure) if names.len() == 1 => return Err(failure),
            Err(failure) => {
                failure.print();
                code = 1;
            }
        }
    }
    match app.screen.format {
        Format::Table => {}
        Format::Json | Format::Name => {
            app.screen.print(&done, || Text::lines(done.iter().map(&name)))?;
        }
    }
    Ok(code)
}
