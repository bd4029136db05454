//! Builds an image into a directory, without a daemon: `cargo run -p bangerd --example build-image -- DIRECTORY [SUITE]`.

use std::path::PathBuf;
use std::time::Instant;

use bangerd::image::{BuildRequest, Progress, build};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir: PathBuf = arguments.next().ok_or("usage: build-image DIRECTORY [SUITE]")?.into();
    let request = BuildRequest {
        name: "debian".into(),
        size: 8 << 30,
        seed_size: 1 << 30,
        scratch: dir.with_extension("scratch"),
        log: dir.with_extension("log"),
        dir,
        suite: arguments.next(),
    };
    let began = Instant::now();
    let tell = |progress| {
        let at = began.elapsed().as_secs_f64();
        match progress {
            Progress::Stage(name) => println!("{at:7.2} {name}"),
            Progress::Line(line) => println!("{at:7.2}   {line}"),
        }
    };
    println!("{:#?}", build(&request, &tell).await?);
    println!("{:7.2} done", began.elapsed().as_secs_f64());
    Ok(())
}
