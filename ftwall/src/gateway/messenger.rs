//! Who tells another program of locked clients: the webhook, where this build has one and it is configured.

#[cfg(feature = "webhook")]
use anyhow::Context as _;

use super::clock::Clock;
use super::event_log::Listener;
use crate::control::configuration::Hook;
use crate::control::events::Delivered;
use crate::gateway::failure::Misconfigured;
#[cfg(feature = "webhook")]
use crate::webhook::{Receiver, Tally, Webhook, WebhookSettings};

/// The thread that tells, if anybody is told.
#[derive(Debug)]
pub(super) struct Messenger {
    #[cfg(feature = "webhook")]
    webhook: Option<Webhook>,
}

impl Messenger {
    /// Starts telling whom the configuration names.
    ///
    /// # Errors
    /// When the secret cannot be read, this build tells nobody, or the system has no thread left.
    #[cfg(feature = "webhook")]
    pub(super) fn start(hook: Option<&Hook>, clock: Clock) -> anyhow::Result<Self> {
        let Some(hook) = hook else {
            return Ok(Self { webhook: None });
        };
        let secret = hook.secret_file.as_deref();
        let receiver = Receiver::new(&hook.url, secret).map_err(|error| {
            let file = secret.map(|file| file.display().to_string());
            Misconfigured(format!(
                "cannot read the secret of webhook_secret_file in {}: {error}; let the daemon's user read \
                 it, and write one line into it",
                file.unwrap_or_default()
            ))
        })?;
        let window = hook.window;
        let webhook = Webhook::start(WebhookSettings { receiver, window }, clock)
            .context("starting the thread of the webhook")?;
        Ok(Self {
            webhook: Some(webhook),
        })
    }

    /// Starts nothing.
    ///
    /// # Errors
    /// When the configuration names somebody.
    #[cfg(not(feature = "webhook"))]
    pub(super) fn start(hook: Option<&Hook>, _clock: Clock) -> anyhow::Result<Self> {
        match hook {
            None => Ok(Self {}),
            Some(_) => {
                let message =
                    "this ftwall was built without the feature webhook: webhook must be off";
                Err(Misconfigured(message.to_owned()).into())
            }
        }
    }

    /// What has to hear of each event.
    pub(super) fn listener(&self) -> Option<Listener> {
        #[cfg(feature = "webhook")]
        if let Some(webhook) = &self.webhook {
            let notifier = webhook.notifier();
            return Some(Box::new(move |event, line| {
                notifier.event(event.event_type, line);
            }));
        }
        None
    }

    /// What becomes of what is to be told.
    pub(super) fn told(&self) -> Told {
        Told {
            #[cfg(feature = "webhook")]
            tally: self.webhook.as_ref().map(Webhook::tally),
        }
    }

    /// Tells what waits, once, unless that takes too long. Its listener has to be gone.
    pub(super) fn finish(self) {
        #[cfg(feature = "webhook")]
        if let Some(webhook) = self.webhook {
            webhook.finish();
        }
    }
}

/// What became of what was to be told.
#[derive(Debug)]
pub(super) struct Told {
    #[cfg(feature = "webhook")]
    tally: Option<Tally>,
}

impl Told {
    /// So far.
    pub(super) fn delivered(&self) -> Delivered {
        #[cfg(feature = "webhook")]
        if let Some(tally) = &self.tally {
            return tally.delivered();
        }
        Delivered::default()
    }
}
