//! `reveille schematic`

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::ConfigFile;
use super::output::{self, print, print_file};
use crate::config::loader::Source;
use crate::pure::config::fields::no_such;
use crate::pure::image_source::Origin;
use crate::pure::redact::shown;
use crate::state::images::store::Store;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image, by its name in the config
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Print its YAML alone, byte by byte as the factory's id is made of it
    #[arg(long, conflicts_with_all = ["id", "json"])]
    yaml: bool,
    /// Print its id alone
    #[arg(long, conflicts_with = "json")]
    id: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Prints the schematic of an image, and its id. Nothing is asked: it is computed here.
pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config)?;
    let config = source.load().with_context(|| format!("config: {source} cannot be used"))?;
    let name = &arguments.image;
    let images = &config.catalog.images;
    if !images.contains_key(name) {
        bail!("{}", no_such("image", name, images.keys().map(String::as_str)));
    }
    let wanted = config.wanted.get(name).into_iter().flatten();
    let recipe = wanted.filter_map(|wanted| match &wanted.origin {
        Origin::Factory(recipe) => Some((recipe, &wanted.set)),
        Origin::Web(..) => None,
    });
    let Some((recipe, set)) = recipe.into_iter().next() else {
        bail!("image {name} is not made by a factory, and so has no schematic");
    };
    let (yaml, id) = (recipe.schematic.yaml(), recipe.schematic.id().to_string());
    let stored = Store::new(&config.server.state).find(set);
    let own = stored.and_then(|stored| stored.manifest.schematic).filter(|own| *own != id);
    let factory = shown(&recipe.factory);
    if arguments.yaml {
        return print_file(&yaml).map(|()| ExitCode::SUCCESS);
    }
    print(&if arguments.id {
        format!("{}\n", own.unwrap_or(id))
    } else if arguments.json {
        let told =
            json!({ "id": id, "id_of_factory": own, "factory": factory.as_str(), "yaml": yaml });
        output::json(&told)
    } else {
        let other = own.map_or(String::new(), |own| {
            format!("{factory} names it {own}, which is what counts\n")
        });
        format!("{id}\n{other}\n{yaml}")
    })?;
    Ok(ExitCode::SUCCESS)
}
