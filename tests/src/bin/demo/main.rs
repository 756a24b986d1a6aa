//! The demo: proxy, log, learn, hot-load, block, review, from end to end with real processes in two minutes.
//!
//! Every figure is measured in this run. Exit code 0 means: every attacker was blocked, no benign client was, no
//! request failed, and no more benign requests were refused than the certified budget allows.

mod learning;
mod siege;
mod story;
mod world;

use std::{process::ExitCode, time::Instant};

use anyhow::Result;

use crate::{story::Story, world::World};

#[tokio::main]
async fn main() -> ExitCode {
    let mut story = Story::new();
    match tell(&mut story).await {
        Ok(()) if story.failures().is_empty() => {
            story.line("Every attacker was blocked, no benign client was, no request failed.");
            ExitCode::SUCCESS
        }
        Ok(()) => {
            story.line("The demo did NOT do what it promises:");
            for failure in story.failures().to_vec() {
                story.line(&format!("  - {failure}"));
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            story.line(&format!("The demo stopped: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn tell(story: &mut Story) -> Result<()> {
    let started = Instant::now();
    let world = World::start(story).await?;
    let model = learning::learn(story, &world).await?;
    let siege = siege::attack(story, &world, &model).await?;
    siege::review(story, &world, &siege).await?;
    story.chapter("The end");
    story.line(&format!("All of it took {:.0} s.", started.elapsed().as_secs_f64()));
    Ok(())
}
