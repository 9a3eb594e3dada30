//! segue-config
