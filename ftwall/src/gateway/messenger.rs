//! Who tells another program of locked clients: the webhook, where this build has one and it is configured.

#[cfg(feature = "webhook")]
use anyhow::Context as _;

use super::clock::Clock;
use super::event_log::Listener;
use super::failure::Misconfigured;
use crate::control::configuration::Hook;
use crate::control::events::Delivered;
#[cfg(feature = "webhook")]
use crate::webhook::{Receiver, Steering, Webhook, WebhookSettings};

/// The thread that tells.
#[derive(Debug)]
pub(super) struct Messenger {
    #[cfg(feature = "webhook")]
    webhook: Webhook,
}

impl Messenger {
    /// Starts telling this one.
    ///
    /// # Errors
    /// When the system has no thread left.
    #[cfg(feature = "webhook")]
    pub(super) fn start(addressee: Addressee, clock: Clock) -> anyhow::Result<Self> {
        let webhook = Webhook::start(clock).context("starting the thread of the webhook")?;
        let messenger = Self { webhook };
        messenger.orders().tell(addressee);
        Ok(messenger)
    }

    /// Starts nothing.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "webhook"))]
    pub(super) fn start(_: Addressee, _: Clock) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// What has to hear of each event.
    pub(super) fn listener(&self) -> Option<Listener> {
        #[cfg(feature = "webhook")]
        {
            let notifier = self.webhook.notifier();
            Some(Box::new(move |_, event, line| {
                notifier.event(event.event_type, line);
            }))
        }
        #[cfg(not(feature = "webhook"))]
        None
    }

    /// A way to change who is told, and to ask what became of it.
    pub(super) fn orders(&self) -> Orders {
        Orders {
            #[cfg(feature = "webhook")]
            steering: self.webhook.steering(),
        }
    }

    /// Tells what waits, once, unless that takes too long. Its listener has to be gone.
    pub(super) fn finish(self) {
        #[cfg(feature = "webhook")]
        self.webhook.finish();
    }
}

/// Changes who is told, and asks what became of it.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    #[cfg(feature = "webhook")]
    steering: Steering,
}

impl Orders {
    /// Tells this one from now on.
    #[cfg(feature = "webhook")]
    pub(super) fn tell(&self, addressee: Addressee) {
        self.steering.tell(addressee.settings);
    }

    /// Has nobody to tell.
    #[cfg(not(feature = "webhook"))]
    pub(super) fn tell(&self, Addressee {}: Addressee) {}

    /// What became of what was to be told so far.
    pub(super) fn delivered(&self) -> Delivered {
        #[cfg(feature = "webhook")]
        return self.steering.delivered();
        #[cfg(not(feature = "webhook"))]
        Delivered::default()
    }
}

/// Who is told, if anybody, with everything read that it takes.
#[derive(Debug)]
pub(super) struct Addressee {
    #[cfg(feature = "webhook")]
    settings: Option<WebhookSettings>,
}

impl Addressee {
    /// Whom the configuration names.
    ///
    /// # Errors
    /// When the secret cannot be read.
    #[cfg(feature = "webhook")]
    pub(super) fn new(hook: Option<&Hook>) -> Result<Self, Misconfigured> {
        let settings = hook.map(settings).transpose()?;
        Ok(Self { settings })
    }

    /// Nobody.
    ///
    /// # Errors
    /// When the configuration names somebody.
    #[cfg(not(feature = "webhook"))]
    pub(super) fn new(hook: Option<&Hook>) -> Result<Self, Misconfigured> {
        match hook {
            None => Ok(Self {}),
            Some(_) => {
                let message =
                    "this ftwall was built without the feature webhook: webhook must be off";
                Err(Misconfigured(message.to_owned()))
            }
        }
    }
}

#[cfg(feature = "webhook")]
fn settings(hook: &Hook) -> Result<WebhookSettings, Misconfigured> {
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
    Ok(WebhookSettings { receiver, window })
}
