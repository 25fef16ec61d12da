//! A coordinator that is gone: started again if it was ours and died, found again wherever the run's leader is now.

use super::super::children::Exit;
use super::super::coordinator::{self, Ending, ending};
use super::super::leader_client::{LeaderClient, Sighting, find, look};
use super::{RunEnd, Supervisor};
use anyhow::Result;
use pixfleet_cluster::run::Outcome;
use pixfleet_cluster::spec::Rung;
use std::time::Duration;
use tokio::time::Instant;

/// How often a coordinator that was lost is looked for.
const LOOK: Duration = Duration::from_millis(100);

impl Supervisor {
    /// A coordinator of ours ended. What it still had to say may be on its way.
    pub(super) fn coordinator_exited(&mut self, exit: Exit) -> Result<Option<RunEnd>> {
        let Some(own) = self.own.as_mut() else { return Ok(None) };
        own.ended(&exit.name);
        let led = !own.has_standbys() || own.address(&exit.name).as_ref() == Some(&self.address);
        if ending(&exit) == Ending::Died {
            if led {
                self.screen.coordinator("lost", &exit.how())?;
            } else {
                self.screen.standby_lost(&exit.how())?;
            }
            let expect = u32::try_from(self.workers.count()).unwrap_or(u32::MAX).max(1);
            own.respawn(&mut self.children, &exit, expect)?;
            if led {
                self.lose_link();
            }
            return Ok(None);
        }
        if !led {
            // It stood by, and says no more of the run than the one that leads, or the run's store.
            return Ok(None);
        }
        self.verdict = Some(exit);
        if self.client.is_some() { Ok(None) } else { self.judge() }
    }

    fn lose_link(&mut self) {
        if self.client.take().is_some() {
            self.lost_at = Instant::now();
        }
        self.look_at = Instant::now();
    }

    pub(super) fn hung_up(&mut self, how: &str) -> Result<Option<RunEnd>> {
        tracing::info!(how, "the connection to the coordinator broke");
        self.lose_link();
        self.judge()
    }

    /// What the coordinator's end means, if it has ended.
    fn judge(&mut self) -> Result<Option<RunEnd>> {
        let Some(exit) = self.verdict.take() else { return Ok(None) };
        let (log, word) = (self.children.log_of(&exit.name), self.children.last_error(&exit.name));
        let word =
            word.unwrap_or_else(|| format!("the coordinator ended: {}; its log is {}", exit.how(), log.display()));
        match ending(&exit) {
            Ending::Over(outcome) => Ok(Some(RunEnd { outcome, message: word })),
            Ending::Deposed | Ending::Died => {
                // The workers go to whoever leads now, and so does this program.
                self.screen.coordinator("lost", &word)?;
                self.own = None;
                Ok(None)
            }
        }
    }

    /// Looks for the coordinator once.
    pub(super) async fn look(&mut self) -> Result<Option<RunEnd>> {
        let found = match self.own.as_ref().filter(|own| !own.has_standbys()) {
            Some(own) => match own.address(coordinator::FIRST) {
                Some(address) => look(&address).await,
                None => Sighting::Nobody("it does not listen yet".into()),
            },
            None => find(&self.spec, &self.address).await,
        };
        match found {
            Sighting::Leader(client) => self.found_again(*client).await.map(|()| None),
            Sighting::Closed(outcome) => {
                let message = format!("the run ended with a fault under its coordinator at {}", self.address);
                Ok(Some(RunEnd { outcome, message }))
            }
            Sighting::Nobody(how) => {
                self.look_at = Instant::now() + LOOK;
                let patience = self.spec.ladder()[Rung::CoordinatorPatience];
                let message = format!("no coordinator for {} s: {how}", patience.as_secs());
                let over = self.lost_at.elapsed() >= patience;
                Ok(over.then_some(RunEnd { outcome: Outcome::Fault, message }))
            }
        }
    }

    async fn found_again(&mut self, client: LeaderClient) -> Result<()> {
        let restarted = self.own.as_ref().is_some_and(|own| !own.has_standbys());
        let state = if restarted { "restarted" } else { "found" };
        if client.address != self.address {
            self.screen.coordinator(state, &client.address)?;
        }
        self.address.clone_from(&client.address);
        self.client = Some(client);
        self.recheck = true;
        if let Some(wish) = self.wish.clone() {
            self.say(wish).await;
        }
        Ok(())
    }
}
