//! `banger image`.

use banger_api::client::Request;
use banger_api::image::{Image, ImageBuild};
use clap::{Args, Subcommand};

use super::each::each;
use super::operation::follow;
use super::values;
use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::complete::Offer;
use crate::failure::Failure;
use crate::output::{Format, Text, human, table};
use crate::size::Size;

/// A verb on images.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Build a Debian image
    Build(Build),
    /// List the images
    #[command(visible_alias = "list")]
    Ls(List),
    /// Show all that is known of an image
    #[command(visible_alias = "inspect")]
    #[command(add = Offer::Images)]
    Show(Show),
    /// Remove images that no VM is made from
    #[command(visible_alias = "remove")]
    #[command(add = Offer::Images)]
    Rm(Remove),
}

/// Arguments of `image build`.
#[derive(Debug, Args)]
pub struct Build {
    /// Its name [default: debian]
    #[arg(value_parser = values::new_name, add = Offer::New)]
    name: Option<String>,
    /// Size of the root disk that its VMs see, as 4G
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    size: Option<Size>,
    /// The Debian release, as trixie [default: that of this host]
    #[arg(long, value_name = "RELEASE")]
    suite: Option<String>,
    /// A Debian package to install beside the usual ones
    #[arg(short, long = "package", value_name = "PACKAGE")]
    packages: Vec<String>,
}

/// Arguments of `image ls`.
#[derive(Debug, Args)]
pub struct List {}

/// Arguments of `image show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The image
    #[arg(value_parser = values::known_name)]
    name: String,
}

/// Arguments of `image rm`.
#[derive(Debug, Args)]
pub struct Remove {
    /// The images
    #[arg(required = true, value_name = "NAME", value_parser = values::known_name)]
    names: Vec<String>,
}

pub(super) async fn run(app: &App, verb: ImageVerb) -> Result<u8, Failure> {
    match verb {
        ImageVerb::Build(build) => build.run(app).await,
        ImageVerb::Ls(_) => list(app).await,
        ImageVerb::Show(show) => show.run(app).await,
        ImageVerb::Rm(remove) => remove.run(app).await,
    }
}

impl Build {
    async fn run(self, app: &App) -> Result<u8, Failure> {
        let build = ImageBuild {
            name: self.name,
            size: self.size.map(|size| size.0),
            suite: self.suite,
            packages: self.packages,
        };
        let mut interrupts = Interrupts::catch()?;
        let request = Request::post(["images"]).json(&build);
        let done = follow::<Image>(app, request, &mut interrupts, "nothing of the image is left").await?;
        let image = done.result;
        app.screen.say(&format!("image {} is built in {}", image.name, human::duration(done.took)));
        match app.screen.format {
            Format::Table => Ok(0),
            Format::Json | Format::Name => app.screen.print(&image, || Text::line(&image.name)).map(|()| 0),
        }
    }
}

impl Show {
    async fn run(self, app: &App) -> Result<u8, Failure> {
        let image: Image = app.call(Request::get(["images", &self.name])).await?;
        app.screen.print(&image, || match app.screen.format {
            Format::Name => Text::line(&image.name),
            Format::Table | Format::Json => details(&image),
        })?;
        Ok(0)
    }
}

impl Remove {
    async fn run(self, app: &App) -> Result<u8, Failure> {
        let request = |name: &str| Request::delete(["images", name]);
        let told = |image: &Image| format!("image {} is removed", image.name);
        each(app, &self.names, request, told, |image| &image.name).await
    }
}

async fn list(app: &App) -> Result<u8, Failure> {
    let images: Vec<Image> = app.call(Request::get(["images"])).await?;
    let names_only = app.screen.quiet || app.screen.format == Format::Name;
    app.screen.print(&images, || match names_only {
        true => Text::lines(images.iter().map(|image| &image.name)),
        false => overview(app, &images, human::now()),
    })?;
    if images.is_empty() && app.screen.format == Format::Table {
        app.screen.say("no images yet: `banger image build` makes one");
    }
    Ok(0)
}

fn overview(app: &App, images: &[Image], now: u64) -> Text {
    let row = |image: &Image| {
        let mark = if image.default { " (default)" } else { "" };
        vec![
            format!("{}{mark}", image.name),
            image.system.clone(),
            image.kernel.clone(),
            Size(image.size).to_string(),
            Size(image.allocated).to_string(),
            image.vms.len().to_string(),
            human::ago(image.created, now),
        ]
    };
    let head = ["NAME", "SYSTEM", "KERNEL", "SIZE", "ON DISK", "VMS", "CREATED"];
    app.screen.table(&head, &images.iter().map(row).collect::<Vec<_>>())
}

fn details(image: &Image) -> Text {
    let seed = if image.work_seed { "yes" } else { "no: a new VM's /root is filled in the guest, slower" };
    table::fields(&[
        ("name", image.name.clone()),
        ("id", image.id.clone()),
        ("default", if image.default { "yes" } else { "no" }.to_owned()),
        ("system", image.system.clone()),
        ("kernel", image.kernel.clone()),
        ("size", Size(image.size).to_string()),
        ("on disk", Size(image.allocated).to_string()),
        ("packages", image.packages.to_string()),
        ("suite", image.suite.clone()),
        ("added", image.added.join(" ")),
        ("manifest", image.manifest.clone()),
        ("work seed", seed.to_owned()),
        ("created", human::ago(image.created, human::now())),
        ("vms", image.vms.join(", ")),
    ])
}
