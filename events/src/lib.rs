//! segue-events
