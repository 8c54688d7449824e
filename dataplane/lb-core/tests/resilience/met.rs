//! What a simulation is about.

/// What a simulation must have met to be worth anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Met {
    Retried,
    RetryRefused,
    Opened,
    OpenedAgain,
    ClosedAgain,
    ProbeLeft,
    Waited,
    WokenInVain,
    QueueFull,
    QueueTimeout,
    AbandonedInQueue,
    CircuitOpenedMeanwhile,
    NoBackend,
    Reused,
    FoundClosed,
    NotFresh,
    Wanted,
    GaveUp,
    Warmed,
    WentAway,
    SharedConnection,
}

impl Met {
    pub(crate) const ALL: [Self; 21] = [
        Self::Retried,
        Self::RetryRefused,
        Self::Opened,
        Self::OpenedAgain,
        Self::ClosedAgain,
        Self::ProbeLeft,
        Self::Waited,
        Self::WokenInVain,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::AbandonedInQueue,
        Self::CircuitOpenedMeanwhile,
        Self::NoBackend,
        Self::Reused,
        Self::FoundClosed,
        Self::NotFresh,
        Self::Wanted,
        Self::GaveUp,
        Self::Warmed,
        Self::WentAway,
        Self::SharedConnection,
    ];
}
